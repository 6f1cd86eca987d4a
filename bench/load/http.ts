import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import type { Connection } from "./closed-loop.ts";

/**
 * Keep-alive HTTP connections on which ready bytes are sent, so that the generator costs little of the processors that
 * it measures: Node's own HTTP client alone would take longer than the fastest variant.
 */

/** The requests that are timed as one: each is sent when the one before is answered. */
export type Requests = readonly Uint8Array[];

/** What one connection sends: each of these in order until they are spent, or the same over and over. */
export type Lane =
  | { readonly once: readonly Requests[] }
  /** Requests that may be repeated as they are. */
  | { readonly again: Requests };

/** A good answer. */
export interface Good {
  readonly status: number;
  /** Text that its body holds, `times` often (once, if not said). */
  readonly holds: string;
  readonly times?: number;
}

export interface HttpLoad {
  readonly port: number;
  readonly lanes: readonly Lane[];
  /** Nothing new is sent after so long. */
  readonly ms: number;
  /** Of the first, second, ... request of a turn. */
  readonly answers: readonly Good[];
}

const HEAD_END = Buffer.from("\r\n\r\n");

/** @throws when the server cannot be reached; a turn does when it hangs up. */
export async function dialHttp(port: number, lane: Lane, good: readonly Good[]): Promise<Connection> {
  const socket = await dial(port);
  const answers = answersOf(socket);
  const left = requestsOf(lane);
  return {
    async turn() {
      const { value: requests } = left.next();
      if (requests === undefined) return null;
      let firstAt: number | undefined;
      for (const [index, request] of requests.entries()) {
        socket.write(request);
        const answer = await answers.next();
        const wanted = good[index];
        if (wanted === undefined || !isGood(answer, wanted))
          return { ok: false, sample: `${answer.status} ${answer.body.toString("utf8")}` };
        if (index === 0 && requests.length > 1) firstAt = performance.now();
      }
      return firstAt === undefined ? { ok: true } : { ok: true, firstAt };
    },
    close: () => socket.destroy(),
  };
}

function isGood({ status, body }: HttpAnswer, wanted: Good): boolean {
  if (status !== wanted.status) return false;
  let from = 0;
  for (let seen = 0; seen < (wanted.times ?? 1); seen += 1) {
    const at = body.indexOf(wanted.holds, from);
    if (at < 0) return false;
    from = at + 1;
  }
  return true;
}

function* requestsOf(lane: Lane): Generator<Requests, undefined> {
  if ("once" in lane) yield* lane.once;
  else for (;;) yield lane.again;
}

function dial(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => {
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

interface HttpAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/** Reads answers with a Content-Length, one at a time; anything else is an error, for no variant sends it. */
function answersOf(socket: Socket): { next(): Promise<HttpAnswer> } {
  let read = Buffer.alloc(0);
  let wanted: PromiseWithResolvers<HttpAnswer> | null = null;
  const fail = (error: Error) => wanted?.reject(error);
  const take = () => {
    const headEnd = read.indexOf(HEAD_END);
    if (headEnd < 0 || wanted === null) return;
    const head = read.toString("latin1", 0, headEnd);
    const length = /\r\ncontent-length: *([0-9]+)/i.exec(head)?.[1];
    if (length === undefined) return fail(new Error(`an answer without Content-Length:\n${head}`));
    const end = headEnd + HEAD_END.length + Number(length);
    if (read.length < end) return;
    const body = read.subarray(headEnd + HEAD_END.length, end);
    read = read.subarray(end);
    const { resolve } = wanted;
    wanted = null;
    resolve({ status: Number(head.slice(9, 12)), body });
  };
  socket.on("data", (chunk) => {
    read = read.length === 0 ? chunk : Buffer.concat([read, chunk]);
    take();
  });
  socket.on("error", fail);
  socket.on("close", () => fail(new Error("the server closed the connection")));
  return {
    next() {
      wanted = Promise.withResolvers();
      return wanted.promise;
    },
  };
}
