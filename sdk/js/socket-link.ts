import { CLIENT_CLOSE, type FromClient, ToClient } from "@gpux/protocol/client-frames";
import { socketProtocols } from "@gpux/protocol/http-signature/socket-credentials";
import { abortedError, GpuxError, invalidResponse, jsonOf, networkError } from "./error.ts";
import { backoff, type Timing } from "./timing.ts";
import type { SignedBy, Transport } from "./transport.ts";

/** What this needs of a WebSocket: the platform's own, in browsers and in Node since 22. */
export interface ClientSocket {
  send(text: string): void;
  close(code?: number): void;
  addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
  addEventListener(type: "close", listener: (event: { readonly code: number }) => void): void;
  addEventListener(type: "error", listener: () => void): void;
}
export type Dial = (url: string, protocols: string[]) => ClientSocket;

type Body<F> = F extends FromClient ? Omit<F, "v"> : never;
/** A frame to the lease, as its sender writes it. */
export type Frame = Body<FromClient>;
export type Ready = Extract<ToClient, { t: "ready" }>;
export type Said = Exclude<ToClient, Ready>;

export interface LinkSettings {
  readonly transport: Transport;
  readonly timing: Timing;
  readonly dial: Dial;
  /** Of the session socket, from the edge's address on. */
  readonly path: string;
  /** A connection is up: whatever has not been answered is to be sent again. */
  readonly onReady: (ready: Ready) => void;
  readonly onFrame: (frame: Said) => void;
  /** There will be no connection any more. */
  readonly onEnd: (why: GpuxError) => void;
}

export interface SocketLink {
  /** A {@link Frame} as text. False when there is no connection now. */
  send(frame: string): boolean;
  close(): void;
}

/** A connection that says nothing for so long is asked whether it is there; another such silence, and it is not. */
const SILENCE_MS = 45_000;
/** Back-off begins anew after a connection that lasted. */
const STABLE_MS = 10_000;
/** Tries in a row without a connection, before the caller is told. */
const MOST_TRIES = 8;
/** RFC 6455 section 7.4.1: nothing is wrong. */
const NORMAL = 1000;

/** How a connection went. */
interface Connection {
  readonly code: number;
  /** Null when it never was one. */
  readonly upMs: number | null;
}

/** A session socket that is dialled again whenever it is lost, each time with a fresh signature. */
export function createSocketLink(settings: LinkSettings): SocketLink {
  const { transport, timing } = settings;
  const stopped = new AbortController();
  let open: ClientSocket | null = null;

  async function connect(by: SignedBy): Promise<Connection> {
    const protocols = socketProtocols(await transport.sign(settings.path, by));
    const url = new URL(settings.path, transport.url);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (stopped.signal.aborted) return { code: NORMAL, upMs: null };
    const socket = settings.dial(url.href, protocols);
    const over = new AbortController();
    const stop = () => socket.close(NORMAL);
    stopped.signal.addEventListener("abort", stop);
    let since: number | null = null;
    let heard = true;
    const watch = async () => {
      for (;;) {
        await timing.sleep(SILENCE_MS, over.signal);
        if (over.signal.aborted) return;
        if (!heard) return over.abort();
        heard = false;
        socket.send("ping");
      }
    };
    const closed = new Promise<number>((resolve) => {
      socket.addEventListener("close", ({ code }) => resolve(code));
      // A close event follows an error (WHATWG WebSockets, section 4); without a listener Node would throw it.
      socket.addEventListener("error", () => undefined);
      over.signal.addEventListener("abort", () => {
        socket.close(NORMAL);
        resolve(1006);
      });
    });
    socket.addEventListener("message", ({ data }) => {
      if (over.signal.aborted) return;
      heard = true;
      if (data === "pong") return;
      const frame = readFrame(data);
      if (frame === null) return;
      if (frame.t !== "ready") return settings.onFrame(frame);
      since = timing.now();
      open = socket;
      void watch();
      settings.onReady(frame);
    });
    const code = await closed;
    stopped.signal.removeEventListener("abort", stop);
    open = null;
    over.abort();
    return { code, upMs: since === null ? null : timing.now() - since };
  }

  /** Null for what a newer edge says beyond what is known here. Anything else that is no frame ends the link. */
  function readFrame(data: unknown): ToClient | null {
    const value = typeof data === "string" ? jsonOf(data) : undefined;
    const frame = ToClient.safeParse(value);
    if (frame.success) return frame.data;
    const isNewer =
      typeof value === "object" &&
      value !== null &&
      "t" in value &&
      typeof value.t === "string" &&
      !KNOWN.has(value.t);
    if (!isNewer)
      end(invalidResponse("the session socket", frame.error.issues[0]?.message ?? "no frame", null));
    return null;
  }

  /**
   * A WebSocket does not tell why its upgrade was refused: the same request without the upgrade does. Null when trying
   * again may help; `wallet` when the session that signed may not do this, and the account may.
   */
  async function refusal(by: SignedBy): Promise<GpuxError | "wallet" | null> {
    const signed = by === "wallet" ? "wallet" : "session";
    try {
      await transport.send({
        method: "GET",
        path: settings.path,
        signed,
        retried: false,
        signal: stopped.signal,
      });
      return null;
    } catch (error) {
      if (!(error instanceof GpuxError)) throw error;
      if (error.code === "upgrade_required" || error.retryable) return null;
      return by === "session" && transport.recover(error) === "wallet" ? "wallet" : error;
    }
  }

  async function keepConnected(): Promise<void> {
    let by: SignedBy = "session";
    let cause: unknown = "the upgrade was not answered";
    for (let tries = 0; !stopped.signal.aborted; tries += 1) {
      if (tries === MOST_TRIES) throw networkError(cause, transport.url);
      const { code, upMs } = await connect(by);
      if (stopped.signal.aborted) return;
      const why = FINAL.get(code);
      if (why !== undefined) throw why();
      cause = `the socket was closed with ${code}`;
      if (upMs !== null && upMs >= STABLE_MS) tries = 0;
      if (upMs === null) {
        const refused = await refusal(by);
        if (refused instanceof GpuxError) throw refused;
        if (refused === "wallet") {
          by = "wallet";
          continue;
        }
      }
      await timing.sleep(backoff(tries, timing), stopped.signal);
    }
  }

  function end(why: GpuxError): void {
    if (stopped.signal.aborted) return;
    stopped.abort();
    settings.onEnd(why);
  }

  keepConnected().catch((error: unknown) => {
    end(error instanceof GpuxError ? error : networkError(error, transport.url));
  });

  return {
    send(frame) {
      if (open === null) return false;
      open.send(frame);
      return true;
    },
    close: () => end(abortedError()),
  };
}

const KNOWN: ReadonlySet<string> = new Set(ToClient.options.flatMap(({ shape }) => [...shape.t.values]));

/** After which another dial would meet the same. */
const FINAL: ReadonlyMap<number, () => GpuxError> = new Map([
  [
    CLIENT_CLOSE.gone,
    () =>
      new GpuxError({
        code: "lease_closed",
        title: "The lease is over",
        hint: "Open a new lease.",
        status: 409,
        fault: "tenant",
      }),
  ],
  ...[CLIENT_CLOSE.badFrame, CLIENT_CLOSE.tooLong, CLIENT_CLOSE.flooded].map(
    (code) =>
      [code, () => invalidResponse("the session socket", `the edge closed it with ${code}`, null)] as const,
  ),
]);
