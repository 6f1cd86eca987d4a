import { Problem } from "@gpux/protocol/answers";
import {
  CLIENT_CLOSE,
  CLIENT_FRAME_LIMIT,
  CLIENT_FRAME_VERSION,
  CLIENT_PROTOCOL,
  MOST_UNDER_WAY,
  RequestName,
  type ToClient,
} from "@gpux/protocol/client-frames";
import { problem } from "@gpux/protocol/errors";
import { Address, JobId, type LeaseId } from "@gpux/protocol/ids";
import type { JobEvent, JobView } from "@gpux/protocol/job";
import { SessionId } from "@gpux/protocol/session";
import { wireText } from "@gpux/protocol/wire";
import { z } from "zod";
import { isTerminal, type Job } from "./job-state.ts";

const CLIENT = "client";
/** Of one lease: an app has one per tab or worker. */
export const MOST_CLIENTS = 64;
/** A wallet's signature on an upgrade is good for so long; a session's until the grant ends. */
export const LONGEST_SOCKET_MS = 24 * 3_600_000;
/** Of a job's id, what follows its lease's. */
const REST = 26;

/** Who dialled, as its upgrade was signed. */
const Dialler = z.strictObject({
  address: Address,
  session: SessionId.nullable(),
  bearer: z.boolean(),
  /** Milliseconds: after this it has to dial again. */
  until: z.int(),
  /** Of the upgrade, for refusals to quote. */
  request: z.string(),
});
export type Dialler = z.infer<typeof Dialler>;

/** What a socket keeps over a hibernation: who it is, and what it waits for (a job by what follows the lease in its id). */
const Attachment = z.strictObject({
  v: z.literal(1),
  dialler: Dialler,
  waits: z.array(z.tuple([RequestName, z.int().nullable(), z.string()])),
});

/** What a job is to the client that sent it: the request's name and, of a batch, its place. */
export interface Waiting {
  readonly id: string;
  readonly index: number | null;
  /** That it was accepted has been said. */
  told: boolean;
}

export interface Client {
  readonly socket: WebSocket;
  readonly dialler: Dialler;
  /** Jobs that it waits for the end of. */
  readonly waits: Map<JobId, Waiting>;
}

type Answer = { [T in ToClient["t"]]: Omit<Extract<ToClient, { t: T }>, "v"> }[ToClient["t"]];

/**
 * Session sockets: clients that send jobs over their own WebSocket. They hibernate as all sockets of a lease; what a wake
 * must know of them is in their attachments, which are written with the rows, and only of jobs that outlive those.
 */
export class ClientSockets {
  readonly #ctx: DurableObjectState;
  readonly #clients = new Map<WebSocket, Client>();
  readonly #byJob = new Map<JobId, Set<Client>>();
  /** Jobs of which no client has heard that they were accepted. */
  readonly #untold = new Set<JobId>();
  /** Whose attachment is not what they wait for. */
  readonly #changed = new Set<Client>();

  constructor(ctx: DurableObjectState, lease: LeaseId | null) {
    this.#ctx = ctx;
    if (lease === null) return;
    for (const socket of ctx.getWebSockets(CLIENT)) {
      const kept = Attachment.safeParse(socket.deserializeAttachment());
      if (socket.readyState !== WebSocket.OPEN || !kept.success) continue;
      const client = this.#join(socket, kept.data.dialler);
      for (const [id, index, rest] of kept.data.waits)
        this.wait(client, JobId.parse(`job_${lease.slice(4)}_${rest}`), { id, index, told: true });
    }
  }

  get count(): number {
    return this.#clients.size;
  }

  /** When the first of them has to dial again, milliseconds. */
  get firstEnd(): number {
    return this.#clients
      .values()
      .reduce((at, { dialler }) => Math.min(at, dialler.until), Number.POSITIVE_INFINITY);
  }

  of(socket: WebSocket): Client | null {
    return this.#clients.get(socket) ?? null;
  }

  accept(lease: LeaseId, dialler: Dialler): Response {
    const { 0: there, 1: socket } = new WebSocketPair();
    this.#ctx.acceptWebSocket(socket, dialler.session === null ? [CLIENT] : [CLIENT, dialler.session]);
    const client = this.#join(socket, dialler);
    this.#changed.add(client);
    this.keep();
    this.send(client, {
      t: "ready",
      lease,
      most_under_way: MOST_UNDER_WAY,
      frame_limit: CLIENT_FRAME_LIMIT,
      until: new Date(dialler.until).toISOString(),
    });
    const headers = { "sec-websocket-protocol": CLIENT_PROTOCOL };
    return new Response(null, { status: 101, webSocket: there, headers });
  }

  send({ socket }: Client, answer: Answer): void {
    if (socket.readyState === WebSocket.OPEN) socket.send(wireText({ v: CLIENT_FRAME_VERSION, ...answer }));
  }

  /** From here on the client is told of the job: that it is on record, what becomes of it, and its end. */
  wait(client: Client, job: JobId, waiting: Waiting): void {
    if (this.of(client.socket) === null) return;
    client.waits.set(job, waiting);
    if (!waiting.told) this.#untold.add(job);
    const waiters = this.#byJob.get(job) ?? new Set();
    this.#byJob.set(job, waiters.add(client));
  }

  /** Jobs that some client waits for the end of. */
  awaited(): JobId[] {
    return [...this.#byJob.keys()];
  }

  unwait(client: Client, job: JobId): void {
    if (client.waits.get(job)?.told) this.#changed.add(client);
    client.waits.delete(job);
    const waiters = this.#byJob.get(job);
    waiters?.delete(client);
    if (waiters?.size !== 0) return;
    this.#byJob.delete(job);
    this.#untold.delete(job);
  }

  /** A job has changed; one that ended is told at once, whether its row is written or not (ACK-5). */
  changed(job: Job, view: (job: Job) => JobView): void {
    const waiters = isTerminal(job) ? this.#byJob.get(job.id) : undefined;
    if (waiters === undefined) return;
    const shown = view(job);
    for (const client of [...waiters]) {
      const waiting = client.waits.get(job.id);
      if (waiting === undefined) continue;
      const t = job.status === "succeeded" ? "result" : "failed";
      if (job.move?.gone) this.#refuseMoved(client, waiting.id, job.move.to);
      else this.send(client, { t, ...nameOf(waiting), job: shown });
      this.unwait(client, job.id);
    }
  }

  /** It came to wait for the job when that was already on its way to another lease. */
  #refuseMoved(client: Client, id: string, lease: LeaseId): void {
    const said = problem("job_moved", client.dialler.request, undefined, { lease });
    this.send(client, { t: "refused", id, problem: Problem.parse(said) });
  }

  /** ACK-1: those are accepted that are on record; `find` answers null for all others. */
  recorded(find: (id: JobId) => Job | null, view: (job: Job) => JobView): void {
    for (const id of [...this.#untold]) {
      const job = find(id);
      if (job === null) continue;
      this.changed(job, view);
      for (const client of this.#byJob.get(id) ?? []) {
        const waiting = client.waits.get(id);
        if (waiting === undefined || waiting.told) continue;
        this.send(client, { t: "accepted", ...nameOf(waiting), job: view(job) });
        waiting.told = true;
        this.#changed.add(client);
      }
      this.#untold.delete(id);
    }
  }

  /** What has happened to jobs that were accepted and have not ended. */
  tell(events: readonly JobEvent[], find: (id: JobId) => Job | null): void {
    if (this.#byJob.size === 0) return;
    for (const event of events) {
      if ((event.type !== "status" && event.type !== "progress") || !this.#byJob.has(event.job)) continue;
      const job = find(event.job);
      if (job === null || isTerminal(job)) continue;
      for (const client of this.#byJob.get(event.job) ?? []) {
        const waiting = client.waits.get(event.job);
        if (waiting?.told) this.send(client, { t: "event", ...nameOf(waiting), event });
      }
    }
  }

  /** What a wake must know is put where it survives one. An object sleeps only when it has nothing to write. */
  keep(): void {
    for (const { socket, dialler, waits } of this.#changed) {
      if (socket.readyState !== WebSocket.OPEN) continue;
      const kept = [...waits].filter(([, { told }]) => told);
      const entries = kept.map(([job, { id, index }]) => [id, index, job.slice(-REST)] as const);
      socket.serializeAttachment({ v: 1, dialler, waits: entries });
    }
    this.#changed.clear();
  }

  /** Its jobs go on: whoever dials again asks for them by their names. */
  closed(socket: WebSocket): void {
    const client = this.of(socket);
    if (client === null) return;
    for (const job of client.waits.keys()) this.unwait(client, job);
    this.#changed.delete(client);
    this.#clients.delete(socket);
  }

  close({ socket }: Client, code: number, reason: string): void {
    this.closed(socket);
    socket.close(code, reason);
  }

  /** SES-6: a session that was revoked is heard no more. */
  revoke(session: SessionId): void {
    for (const client of [...this.#clients.values()])
      if (client.dialler.session === session)
        this.close(client, CLIENT_CLOSE.unauthorized, "the session was revoked");
  }

  /** Whoever has been connected for as long as its signature counts must show another. */
  expire(now: number): void {
    for (const client of [...this.#clients.values()])
      if (client.dialler.until <= now) this.close(client, CLIENT_CLOSE.unauthorized, "dial again");
  }

  /** Nothing more will happen to the lease. */
  end(): void {
    for (const client of [...this.#clients.values()])
      this.close(client, CLIENT_CLOSE.gone, "the lease is over");
  }

  #join(socket: WebSocket, dialler: Dialler): Client {
    const client: Client = { socket, dialler, waits: new Map() };
    this.#clients.set(socket, client);
    return client;
  }
}

function nameOf({ id, index }: Waiting): { id: string; index?: number } {
  return index === null ? { id } : { id, index };
}
