import { SELF } from "cloudflare:test";
import { CLIENT_FRAME_VERSION, CLIENT_PROTOCOL, ToClient } from "@gpux/protocol/client-frames";
import type { LeaseId } from "@gpux/protocol/ids";
import { requestOf } from "../../testing/client.ts";

type Frame<T extends ToClient["t"]> = Extract<ToClient, { t: T }>;

function isA<T extends ToClient["t"]>(frame: ToClient, t: T): frame is Frame<T> {
  return frame.t === t;
}

/** The GET that a session socket's upgrade is, to be signed. */
export function upgradeTo(lease: LeaseId): Request {
  const headers = { upgrade: "websocket", "sec-websocket-protocol": CLIENT_PROTOCOL };
  return requestOf(`/v1/leases/${lease}/session`, { headers });
}

/** A client's end of a session socket, as a test scripts it: frames are taken one after another. */
export class ClientLine {
  readonly #socket: WebSocket;
  readonly #came: ToClient[] = [];
  #wanted: ((frame: ToClient) => void) | null = null;
  #pong = Promise.withResolvers<void>();
  readonly closed: Promise<number>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", ({ code }) => {
        socket.close(code);
        resolve(code);
      });
    });
    socket.addEventListener("message", ({ data }) => {
      if (data === "pong") return this.#pong.resolve();
      const frame = ToClient.parse(JSON.parse(String(data)));
      const want = this.#wanted;
      this.#wanted = null;
      if (want === null) this.#came.push(frame);
      else want(frame);
    });
    socket.accept();
  }

  /** Dials with a request that somebody has signed; resolves after `ready`. */
  static async dial(signed: Request): Promise<ClientLine> {
    const response = await SELF.fetch(signed);
    if (response.webSocket === null)
      throw new Error(`no socket: ${response.status} ${await response.text()}`);
    const line = new ClientLine(response.webSocket);
    await line.next("ready");
    return line;
  }

  /** The next frame, which must be of this kind; events are passed over unless one is asked for. */
  async next<T extends ToClient["t"]>(t: T): Promise<Frame<T>> {
    for (;;) {
      const frame = await this.#any();
      if (isA(frame, t)) return frame;
      if (frame.t !== "event") throw new Error(`expected ${t}, got ${frame.t}`);
    }
  }

  /** The next end of a job; whatever is said of jobs before their end is passed over. */
  async end(): Promise<Frame<"result"> | Frame<"failed">> {
    for (;;) {
      const frame = await this.#any();
      if (frame.t === "result" || frame.t === "failed") return frame;
      if (frame.t !== "accepted" && frame.t !== "event") throw new Error(`expected an end, got ${frame.t}`);
    }
  }

  async #any(): Promise<ToClient> {
    return this.#came.shift() ?? (await new Promise<ToClient>((resolve) => (this.#wanted = resolve)));
  }

  say(frame: object): void {
    this.raw(JSON.stringify({ v: CLIENT_FRAME_VERSION, ...frame }));
  }

  raw(text: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(text);
  }

  /** Resolves when the heartbeat is answered. */
  ping(): Promise<void> {
    this.#pong = Promise.withResolvers();
    this.#socket.send("ping");
    return this.#pong.promise;
  }

  close(): void {
    this.#socket.close(1000);
  }
}
