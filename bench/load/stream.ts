import { connect } from "node:net";
import { performance } from "node:perf_hooks";
import type { Connection } from "./closed-loop.ts";
import type { Requests } from "./http.ts";

/** Large answers, counted as they come and kept nowhere: what reads them should cost little beside what sends them. */
export interface StreamLoad {
  readonly port: number;
  /** Of each connection the turns: requests of which the last is answered with the bytes. */
  readonly lanes: readonly (readonly Requests[])[];
  /** Nothing new is sent after so long. */
  readonly ms: number;
  /** Of the requests before the last, in order. */
  readonly statuses: readonly number[];
  /** So long is the last answer, which is a 200. */
  readonly bytes: number;
}

interface Answer {
  readonly status: number;
  readonly bytes: number;
  /** When the first of them came, by `performance.now()`. */
  readonly firstAt: number;
  /** Its beginning, to be shown. */
  readonly text: string;
}

const READ_BYTES = 256 * 1024;
const TEXT_BYTES = 400;
const HEAD_END = Buffer.from("\r\n\r\n");

/** @throws when the server cannot be reached; a turn does when it hangs up. */
export async function dialStream(
  { port, lanes, statuses, bytes }: StreamLoad,
  index: number,
): Promise<Connection> {
  const reader = new AnswerReader();
  const opened = Promise.withResolvers<void>();
  const socket = connect({
    ...{ port, host: "127.0.0.1", noDelay: true },
    onread: {
      buffer: Buffer.alloc(READ_BYTES),
      callback: (length, buffer) => {
        reader.take(Buffer.from(buffer.buffer, buffer.byteOffset, length));
        return true;
      },
    },
  });
  socket.once("connect", opened.resolve);
  socket.on("error", (error) => {
    opened.reject(error);
    reader.fail(error);
  });
  socket.on("close", () => reader.fail(new Error("the server closed the connection")));
  await opened.promise;
  const left = [...(lanes[index] ?? [])];
  return {
    async turn() {
      const requests = left.shift();
      if (requests === undefined) return null;
      for (const [at, request] of requests.entries()) {
        const answered = reader.next();
        socket.write(request);
        const { status, text, firstAt, ...came } = await answered;
        const isLast = at === requests.length - 1;
        if (status !== (isLast ? 200 : statuses[at])) return { ok: false, sample: `${status} ${text}` };
        if (!isLast) continue;
        return came.bytes === bytes
          ? { ok: true, firstAt }
          : { ok: false, sample: `${came.bytes} bytes instead of ${bytes}` };
      }
      return { ok: false, sample: "a turn without requests" };
    },
    close: () => socket.destroy(),
  };
}

/** Reads answers with a Content-Length, one at a time. */
class AnswerReader {
  #head = Buffer.alloc(0);
  #body: { status: number; left: number; bytes: number; firstAt: number; text: string } | null = null;
  #wanted: PromiseWithResolvers<Answer> | null = null;

  next(): Promise<Answer> {
    this.#wanted = Promise.withResolvers();
    return this.#wanted.promise;
  }

  fail(error: Error): void {
    this.#wanted?.reject(error);
  }

  /** `read` is good until this returns. */
  take(read: Buffer): void {
    if (this.#body !== null) return this.#count(read);
    this.#head = Buffer.concat([this.#head, read]);
    const end = this.#head.indexOf(HEAD_END);
    if (end < 0) return;
    const head = this.#head.toString("latin1", 0, end);
    const rest = this.#head.subarray(end + HEAD_END.length);
    this.#head = Buffer.alloc(0);
    const length = /\r\ncontent-length: *([0-9]+)/i.exec(head)?.[1];
    if (length === undefined) return this.fail(new Error(`an answer without Content-Length:\n${head}`));
    this.#body = { status: Number(head.slice(9, 12)), left: Number(length), bytes: 0, firstAt: 0, text: "" };
    this.#count(rest);
  }

  #count(read: Buffer): void {
    const body = this.#body;
    if (body === null) return;
    if (body.bytes === 0 && read.length > 0) {
      body.firstAt = performance.now();
      if (body.status !== 200) body.text = read.toString("utf8", 0, TEXT_BYTES);
    }
    body.bytes += read.length;
    body.left -= read.length;
    if (body.left > 0) return;
    this.#body = null;
    this.#wanted?.resolve(body);
  }
}
