import { CLOSE, FRAME_VERSION, type ToLease } from "@gpux/protocol/frames";
import type { JobId } from "@gpux/protocol/ids";
import type { JobEvent } from "@gpux/protocol/job";
import type { LeaseEvent } from "@gpux/protocol/lease-event";
import { wireText } from "@gpux/protocol/wire";
import { movedReason } from "../moved.ts";
import { isTerminal, type Job } from "./job-state.ts";

const AGENT = "agent";
/** Of readers of the lease's own events; those of a job's bear its id. */
const LEASE = "lease";

/** The heartbeats `ping`/`pong` are answered by the runtime: they wake nothing and write nothing. */
const HEARTBEAT = new WebSocketRequestResponsePair("ping", "pong");

function isOpen(socket: WebSocket): boolean {
  return socket.readyState === WebSocket.OPEN;
}

/** The runtime makes these codes up; echoing one throws later, outside of any try. */
function closeQuietly(socket: WebSocket, code: number, reason: string): void {
  const synthetic = code === 1005 || code === 1006 || code === 1015;
  socket.close(synthetic ? 1000 : code, synthetic ? "" : reason);
}

/** Why nobody watches the job here any more. */
export function watchEnd({ move }: Job): string {
  return move?.gone ? movedReason(move.to) : "the job has ended";
}

/** The lease's data socket. It hibernates; after a wake it is found by its tag. The newest connection counts. */
export class AgentSocket {
  readonly #ctx: DurableObjectState;
  #socket: WebSocket | null;
  /** The acknowledgement that went out last. */
  #told: number | null = 0;

  constructor(ctx: DurableObjectState) {
    this.#ctx = ctx;
    ctx.setWebSocketAutoResponse(HEARTBEAT);
    this.#socket = ctx.getWebSockets(AGENT).find(isOpen) ?? null;
  }

  get connected(): boolean {
    return this.#socket !== null;
  }

  accept(): Response {
    const { 0: client, 1: server } = new WebSocketPair();
    this.#ctx.acceptWebSocket(server, [AGENT]);
    this.#socket?.close(CLOSE.replaced, "a newer connection took over");
    this.#socket = server;
    this.#told = null;
    return new Response(null, { status: 101, webSocket: client });
  }

  /** The lease is over: the agent may forget it. */
  end(): void {
    this.#socket?.close(CLOSE.gone, "the lease is over");
    this.#socket = null;
  }

  is(socket: WebSocket): boolean {
    return socket === this.#socket;
  }

  /** `ack`: the highest seq of the agent's whose effect is in the rows, whatever the step knew that made the frame. */
  send(frame: ToLease, ack: number): void {
    if (this.#socket === null || !isOpen(this.#socket)) return;
    this.#socket.send(wireText({ ...frame, ack }));
    this.#told = ack;
  }

  /** A frame of its own, unless another told it already. On a new connection the welcome is the first to speak. */
  acknowledge(ack: number): void {
    if (this.#told !== null && ack > this.#told) this.send({ v: FRAME_VERSION, t: "ack", seq: 0, ack }, ack);
  }

  /**
   * Answers whether the lease has no agent now. The close of a socket that hibernated wakes a new life of the object,
   * which did not find it among the open ones any more: its tag says whose it was.
   */
  closed(socket: WebSocket, code: number, reason: string): boolean {
    closeQuietly(socket, code, reason);
    if (this.is(socket)) this.#socket = null;
    return this.#socket === null && this.#ctx.getTags(socket).includes(AGENT);
  }
}

/** Readers of the events of a job, or of the lease. Their sockets hibernate too, so watching a quiet job keeps nothing awake. */
export class Watchers {
  readonly #ctx: DurableObjectState;

  constructor(ctx: DurableObjectState) {
    this.#ctx = ctx;
  }

  /** First what was missed, then what comes; the socket closes after the job's end (`end`: how, where that has been). */
  accept(job: JobId, missed: readonly JobEvent[], end: string | null): Response {
    const { 0: client, 1: server } = new WebSocketPair();
    this.#ctx.acceptWebSocket(server, [job]);
    for (const event of missed) server.send(JSON.stringify(event));
    if (end !== null) server.close(1000, end);
    return new Response(null, { status: 101, webSocket: client });
  }

  /** Nothing more of the job will happen here. */
  end(job: Job): void {
    for (const socket of this.#ctx.getWebSockets(job.id))
      if (isOpen(socket)) socket.close(1000, watchEnd(job));
  }

  /** As {@link accept}, of the lease itself; the socket closes when there is nothing left to happen to it. */
  acceptLease(missed: readonly LeaseEvent[], ended: boolean): Response {
    const { 0: client, 1: server } = new WebSocketPair();
    this.#ctx.acceptWebSocket(server, [LEASE]);
    for (const event of missed) server.send(JSON.stringify(event));
    if (ended) server.close(1000, "the lease is over");
    return new Response(null, { status: 101, webSocket: client });
  }

  tellLease(events: readonly LeaseEvent[], ended: boolean): void {
    if (events.length === 0) return;
    for (const socket of this.#ctx.getWebSockets(LEASE)) {
      if (!isOpen(socket)) continue;
      for (const event of events) socket.send(JSON.stringify(event));
      if (ended) socket.close(1000, "the lease is over");
    }
  }

  tell(events: readonly JobEvent[], find: (id: JobId) => Job | null): void {
    for (const event of events) {
      const sockets = this.#ctx.getWebSockets(event.job);
      if (sockets.length === 0) continue;
      const job = find(event.job);
      const ends =
        event.type === "status" && job !== null && isTerminal(job) && event.data.status === job.status;
      for (const socket of sockets) {
        if (!isOpen(socket)) continue;
        socket.send(JSON.stringify(event));
        if (ends) socket.close(1000, watchEnd(job));
      }
    }
  }
}
