import { CLOSE, FRAME_LIMIT } from "@gpux/protocol/frames";
import WebSocket from "ws";
import { asOf, type FrameBody, frameText, ownClock } from "./frames.ts";
import {
  initialLink,
  type LinkEffect,
  type LinkEnd,
  type LinkEvent,
  type LinkState,
  stepLink,
} from "./machine.ts";
import {
  acknowledged,
  due,
  enqueue,
  type Outbox,
  outboxOf,
  said,
  synced,
  type Unacknowledged,
} from "./outbox.ts";

/** What every frame of the edge has; the link needs no more of it. */
interface Frame {
  readonly t: string;
  readonly seq: number;
  readonly ack: number;
}
type Welcome<In> = Extract<In, { t: "welcome" }>;

/** Where a link keeps what must survive the process; the control link keeps nothing. */
export interface LinkStore {
  sent(seq: number, body: FrameBody): void;
  acknowledged(seq: number): void;
  dealt(seq: number): void;
  /** Resolves when all of it so far survives a kill of the process. */
  written(): Promise<void>;
}

export interface LinkOptions<In extends Frame> {
  readonly url: string;
  /** Fresh for each dial: signatures are good once. */
  readonly headers: () => Promise<Record<string, string>>;
  /** The dial's signature was refused, in an answer of this `Date`. */
  readonly onUnsigned?: (date: string | undefined) => void;
  /** Null for what is no frame of this socket. */
  readonly parse: (text: string) => In | null;
  readonly hello: () => FrameBody;
  readonly onWelcome: (frame: Welcome<In>) => void;
  /** What is said, volatile, right before a frame that the last connection may not have brought. */
  readonly preface?: (body: FrameBody) => FrameBody | null;
  /** In order, one after another; the frame counts as dealt with, and is acknowledged, when this resolves. */
  readonly onFrame: (frame: Exclude<In, { t: "welcome" | "ack" }>) => void | Promise<void>;
  readonly onState: (state: LinkState, detail: string) => void;
  readonly onEnd: (end: LinkEnd) => void;
  /** A bug or a failing disk: the link cannot go on and has stopped. */
  readonly onFault: (error: unknown) => void;
  readonly resume?: { frames: readonly Unacknowledged[]; nextSeq: number; dealt: number };
  readonly store?: LinkStore;
}

export interface Link {
  start(): void;
  /** Reliable: replayed until acknowledged; answers its seq. `kept`: leaves only when the store has written it down. */
  send(body: FrameBody, kept?: boolean): number;
  /** Volatile: lost when the link is down. */
  tell(body: FrameBody): void;
  /** Resolves when the edge has acknowledged all that was sent, or the link has ended, or after `ms`. */
  flushed(ms: number): Promise<void>;
  /** When the edge last said anything, by `performance.now()`. */
  heardAt(): number;
  stop(): void;
}

/** A lone acknowledgement waits this long for a frame to ride on. */
const ACK_DELAY_MS = 20;
const CLOSE_NORMAL = 1000;

/** One reliable link over sockets that come and go (protocol/frames.ts); the shell around link/machine.ts. */
export function createLink<In extends Frame>(options: LinkOptions<In>): Link {
  const { store } = options;

  let state: LinkState = initialLink;
  let wake: NodeJS.Timeout | undefined;
  let ackTimer: NodeJS.Timeout | undefined;
  let socket: WebSocket | null = null;
  let outbox: Outbox = outboxOf(options.resume?.frames ?? [], options.resume?.nextSeq ?? 1);
  /** Highest seq of ours that has left on this connection. */
  let left = 0;
  /** Up to here frames are older than this connection. */
  let older = 0;
  let heardAt = 0;
  let received = options.resume?.dealt ?? 0;
  let dealt = received;
  let dealing: Promise<void> = Promise.resolve();
  const flushWaiters = new Set<() => void>();

  function apply(event: LinkEvent, detail = ""): void {
    const before = state;
    const step = stepLink(state, event, performance.now(), Math.random());
    state = step.next;
    clearTimeout(wake);
    if (step.wakeAt !== null)
      wake = setTimeout(
        () => apply({ type: "tick" }),
        Math.max(0, Math.ceil(step.wakeAt - performance.now())),
      );
    for (const effect of step.effects) perform(effect);
    if (state.state === before.state) return;
    options.onState(state, detail);
    if (state.state !== "ended") return;
    clearTimeout(ackTimer);
    for (const wakeUp of flushWaiters) wakeUp();
    options.onEnd(state.end);
  }

  function perform(effect: LinkEffect): void {
    switch (effect) {
      case "dial":
        void dial();
        return;
      case "hello":
        left = outbox.acked;
        put(0, options.hello());
        return;
      case "ping":
        socket?.send("ping");
        return;
      case "drop": {
        const dead = socket;
        socket = null;
        dead?.terminate();
        return;
      }
      case "close": {
        const leaving = socket;
        socket = null;
        leaving?.close(CLOSE_NORMAL);
        // `ws` waits 30 s for the other half; nothing of ours hangs on it.
        const cut = setTimeout(() => leaving?.terminate(), 1_000);
        leaving?.once("close", () => clearTimeout(cut));
        return;
      }
    }
  }

  async function dial(): Promise<void> {
    let headers: Record<string, string>;
    try {
      headers = await options.headers();
    } catch (error) {
      fault(error);
      return;
    }
    if (state.state !== "dialling") return;
    // ws itself sets TCP_NODELAY. Frames are small and many: compressing them would cost more than it saves.
    const fresh = new WebSocket(options.url, {
      headers,
      perMessageDeflate: false,
      maxPayload: 4 * FRAME_LIMIT,
    });
    socket = fresh;
    const current = () => socket === fresh;
    const lost = (event: Extract<LinkEvent, { type: "lost" }>) => {
      if (!current()) return;
      socket = null;
      apply(event, event.detail);
    };
    fresh.on("open", () => current() && apply({ type: "opened" }));
    fresh.on("message", (data, binary) => {
      if (!current()) return;
      if (binary) badFrame("a binary frame");
      else receive(String(data));
    });
    fresh.on("unexpected-response", (request, response) => {
      const { statusCode: status = 0 } = response;
      if (status === 401) options.onUnsigned?.(response.headers.date);
      const retryAfterMs = Number(response.headers["retry-after"] ?? 0) * 1_000;
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      const done = () => {
        request.destroy();
        const detail = `HTTP ${status} ${Buffer.concat(chunks).toString("utf8", 0, 400)}`.trim();
        const wait = Number.isFinite(retryAfterMs) ? { retryAfterMs } : {};
        lost({ type: "lost", code: 1006, detail, status, ...wait });
      };
      response.on("end", done);
      response.on("error", done);
    });
    fresh.on("error", (error) => {
      // Only this event says why a dial failed; `close` follows it with a bare 1006.
      lost({ type: "lost", code: 1006, detail: error.message || String(error) });
    });
    fresh.on("close", (code, reason) => {
      lost({ type: "lost", code, detail: `${code} ${String(reason)}`.trim() });
    });
  }

  function put(seq: number, body: FrameBody): void {
    if (socket?.readyState !== WebSocket.OPEN) return;
    clearTimeout(ackTimer);
    ackTimer = undefined;
    socket.send(frameText(seq, dealt, asOf(body, ownClock())));
  }

  function pump(): void {
    if (state.state !== "up") return;
    for (const frame of due(outbox, left)) {
      const before = frame.seq <= older ? (options.preface?.(frame.body) ?? null) : null;
      if (before !== null) put(0, before);
      put(frame.seq, frame.body);
      left = frame.seq;
      outbox = said(outbox, left);
    }
  }

  function acknowledgeSoon(): void {
    ackTimer ??= setTimeout(() => {
      ackTimer = undefined;
      if (state.state === "up") put(0, { t: "ack" });
    }, ACK_DELAY_MS);
  }

  function take(ack: number): void {
    const before = outbox;
    outbox = acknowledged(outbox, ack);
    if (outbox.acked === before.acked) return;
    store?.acknowledged(outbox.acked);
    if (outbox.nextSeq !== before.nextSeq && outbox.frames.length > 0) {
      // What had not left has new numbers, and is to be found under them.
      for (const { seq, body } of outbox.frames) store?.sent(seq, body);
      releaseWhenWritten(outbox.nextSeq - 1);
    }
    if (outbox.frames.length === 0) for (const wakeUp of flushWaiters) wakeUp();
  }

  function releaseWhenWritten(seq: number): void {
    store?.written().then(() => {
      outbox = synced(outbox, seq);
      pump();
    }, fault);
  }

  function receive(text: string): void {
    heardAt = performance.now();
    apply({ type: "heard" });
    if (text === "pong") return;
    const frame = options.parse(text);
    if (frame === null) {
      badFrame("the frame does not fit the schema");
      return;
    }
    take(frame.ack);
    if (isWelcome(frame)) {
      if ("last_seq" in frame && typeof frame.last_seq === "number") take(frame.last_seq);
      left = outbox.acked;
      older = outbox.nextSeq - 1;
      apply({ type: "welcomed", heartbeatMs: heartbeatOf(frame) });
      options.onWelcome(frame);
      pump();
      return;
    }
    if (!isPayload(frame)) return;
    if (frame.seq === 0) {
      deal(frame);
      return;
    }
    if (frame.seq <= received) {
      // A replay of what we have: the edge did not hear our acknowledgement.
      acknowledgeSoon();
      return;
    }
    received = frame.seq;
    deal(frame);
  }

  function deal(frame: Exclude<In, { t: "welcome" | "ack" }>): void {
    dealing = dealing
      .then(() => (state.state === "ended" ? undefined : options.onFrame(frame)))
      .then(() => {
        if (frame.seq === 0 || state.state === "ended") return;
        dealt = frame.seq;
        store?.dealt(dealt);
        acknowledgeSoon();
      })
      .catch(fault);
  }

  function badFrame(detail: string): void {
    const bad = socket;
    socket = null;
    bad?.close(CLOSE.badFrame, detail.slice(0, 120));
    apply({
      type: "lost",
      code: CLOSE.badFrame,
      detail: `The edge sent what this agent cannot read: ${detail}.`,
    });
  }

  function fault(error: unknown): void {
    if (state.state === "ended") return;
    apply({ type: "stop" });
    options.onFault(error);
  }

  return {
    start: () => apply({ type: "tick" }),
    send(body, kept = false) {
      const seq = outbox.nextSeq;
      const held = kept && store !== undefined;
      outbox = enqueue(outbox, body, held);
      store?.sent(seq, body);
      if (held) releaseWhenWritten(seq);
      else pump();
      return seq;
    },
    tell(body) {
      if (state.state === "up") put(0, body);
    },
    flushed(ms) {
      if (outbox.frames.length === 0 || state.state === "ended") return Promise.resolve();
      return new Promise((resolve) => {
        const done = () => {
          clearTimeout(limit);
          flushWaiters.delete(done);
          resolve();
        };
        const limit = setTimeout(done, ms);
        flushWaiters.add(done);
      });
    },
    heardAt: () => heardAt,
    stop: () => apply({ type: "stop" }),
  };

  function isWelcome(frame: In): frame is Welcome<In> {
    return frame.t === "welcome";
  }
  function isPayload(frame: In): frame is Exclude<In, { t: "welcome" | "ack" }> {
    return frame.t !== "welcome" && frame.t !== "ack";
  }
}

const DEFAULT_HEARTBEAT_S = 25;

/** The welcome's heartbeat, or the usual one where it makes no sense. */
function heartbeatOf(frame: object): number {
  const seconds = "heartbeat_s" in frame ? frame.heartbeat_s : undefined;
  return (typeof seconds === "number" && seconds >= 1 ? seconds : DEFAULT_HEARTBEAT_S) * 1_000;
}
