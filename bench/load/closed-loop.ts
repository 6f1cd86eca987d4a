import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";

/**
 * A closed loop over keep-alive connections: each sends a request, waits for the whole answer, and sends the next.
 * Requests come as ready bytes, so that the generator costs little of the processors that it measures: Node's own
 * HTTP client alone would take longer than the fastest variant.
 */

/** What one connection sends: its requests in order until they are spent, or one over and over. */
export type Lane =
  | { readonly once: readonly Uint8Array[] }
  /** A request that may be repeated as it is. */
  | { readonly again: Uint8Array };

export interface Load {
  readonly port: number;
  readonly lanes: readonly Lane[];
  /** Nothing new is sent after so long. */
  readonly ms: number;
  /** Text that every good answer's body holds. */
  readonly expect: string;
}

export interface Loaded {
  /** Answers of status 200 with the expected text. */
  readonly jobs: number;
  readonly errors: number;
  /** The first wrong answer, cut; empty when there was none. */
  readonly sample: string;
  /** From the first byte sent to the last answer. */
  readonly wallMs: number;
  /** Of good answers, in microseconds, sorted. */
  readonly latenciesUs: Float64Array;
}

const SAMPLE = 600;
const HEAD_END = Buffer.from("\r\n\r\n");

export async function closedLoop(load: Load): Promise<Loaded> {
  const sockets = await Promise.all(load.lanes.map(() => dial(load.port)));
  const latencies: number[] = [];
  let errors = 0;
  let sample = "";
  const since = performance.now();
  const until = since + load.ms;
  const run = async (lane: Lane, socket: Socket) => {
    const answers = answersOf(socket);
    for (const request of requestsOf(lane)) {
      const sentAt = performance.now();
      if (sentAt >= until) break;
      socket.write(request);
      const answer = await answers.next();
      const us = (performance.now() - sentAt) * 1_000;
      if (answer.status === 200 && answer.body.includes(load.expect)) {
        latencies.push(us);
        continue;
      }
      errors += 1;
      if (sample === "") sample = `${answer.status} ${answer.body.toString("utf8")}`.slice(0, SAMPLE);
    }
  };
  try {
    await Promise.all(
      sockets.map((socket, i) => {
        const lane = load.lanes[i];
        return lane === undefined ? undefined : run(lane, socket);
      }),
    );
  } finally {
    for (const socket of sockets) socket.destroy();
  }
  const wallMs = performance.now() - since;
  return {
    jobs: latencies.length,
    errors,
    sample,
    wallMs,
    latenciesUs: Float64Array.from(latencies).sort(),
  };
}

function* requestsOf(lane: Lane): Generator<Uint8Array> {
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
