import { bytesToHex } from "viem/utils";

/** Callers of one output that may be given it while it is uploaded; others read it from storage. */
const MOST_TAKERS = 8;
/** So long altogether may one of them hold the upload up. Then it is cut off, and may read from storage. */
const PATIENCE_MS = 10_000;

/** Bytes that are copied at once, and all that is kept of an upload, twice. */
const PIECE = 128 * 1024;

/** One output on its way from its node. */
export interface Upload {
  readonly sha256: string;
  readonly bytes: number;
  readonly contentType: string;
  readonly body: ReadableStream<Uint8Array>;
}

/** An output as a caller is given it, while it comes. */
export type Live = Omit<Upload, "body"> & { readonly body: ReadableStream<Uint8Array> };

interface Taker {
  readonly writer: WritableStreamDefaultWriter<Uint8Array>;
  patienceMs: number;
  isGone: boolean;
}

/**
 * Outputs that are uploaded through the lease: into storage, and at the same time to callers who wait for them. Nothing of
 * them is kept here but two pieces: the upload goes as fast as its slowest reader, within limits.
 */
export class OutputPipes {
  readonly #waiting = new Map<string, Set<(live: Live) => void>>();

  /** Calls back when an upload of this name begins, at most once. */
  next(name: string, take: (live: Live) => void): void {
    const waiting = this.#waiting.get(name) ?? new Set();
    this.#waiting.set(name, waiting.add(take));
  }

  forget(name: string, take: (live: Live) => void): void {
    const waiting = this.#waiting.get(name);
    waiting?.delete(take);
    if (waiting?.size === 0) this.#waiting.delete(name);
  }

  /**
   * Resolves when all of it is in storage; rejects when it is not, because the node, or storage, broke off, or because the
   * bytes are not what `sha256` says. A caller never gets the last of such bytes.
   */
  async pass(name: string, upload: Upload, objects: R2Bucket): Promise<void> {
    const takers = this.#takersOf(name, upload);
    const store = new FixedLengthStream(upload.bytes);
    const { sha256, contentType } = upload;
    const stored = objects.put(sha256, store.readable, { sha256, httpMetadata: { contentType } });
    // Both are waited for below; whichever rejects first must not go unheard before that.
    stored.catch(() => undefined);
    try {
      if (takers.length === 0) await upload.body.pipeTo(store.writable);
      else await copy(upload, store.writable.getWriter(), takers);
    } catch (error) {
      for (const taker of takers) leave(taker, error);
      // What storage says of it is nearer to the cause.
      await stored;
      throw error;
    }
    await stored;
  }

  #takersOf(name: string, { body: _, ...about }: Upload): Taker[] {
    const waiting = [...(this.#waiting.get(name) ?? [])].slice(0, MOST_TAKERS);
    return waiting.map((take) => {
      const { readable, writable } = new FixedLengthStream(about.bytes);
      take({ ...about, body: readable });
      return { writer: writable.getWriter(), patienceMs: PATIENCE_MS, isGone: false };
    });
  }
}

async function copy(
  { body, sha256 }: Upload,
  store: WritableStreamDefaultWriter<Uint8Array>,
  takers: readonly Taker[],
): Promise<void> {
  const digest = new crypto.DigestStream("SHA-256");
  const hasher = digest.getWriter();
  const reader = body.getReader({ mode: "byob" });
  let held: Uint8Array<ArrayBuffer> | null = null;
  let spare = new ArrayBuffer(PIECE);
  try {
    for (;;) {
      // By default workerd reads four kilobytes at a time.
      const { value: chunk, done } = await reader.read(new Uint8Array(spare));
      if (done) break;
      await Promise.all([
        store.write(chunk),
        hasher.write(chunk),
        ...takers.map((taker) => give(taker, held)),
      ]);
      // Everybody has the one before: its memory serves the next, for to clear a new one costs as much as to copy it.
      // Whoever was cut off may still be reading there.
      const isFree = takers.every(({ isGone }) => !isGone);
      spare = held !== null && isFree ? held.buffer : new ArrayBuffer(PIECE);
      // The last chunk waits for the hash of all.
      held = chunk;
    }
    await hasher.close();
    if (bytesToHex(new Uint8Array(await digest.digest)) !== `0x${sha256}`)
      throw new Error("the bytes are not what their hash says");
    await Promise.all(takers.map((taker) => give(taker, held)));
    for (const { writer, isGone } of takers) if (!isGone) void writer.close().catch(() => undefined);
    await store.close();
  } catch (error) {
    void store.abort(error).catch(() => undefined);
    throw error;
  }
}

/** Resolves when it has the chunk, or is gone: what one caller does keeps nothing from the others, or from storage. */
async function give(taker: Taker, chunk: Uint8Array | null): Promise<void> {
  if (taker.isGone || chunk === null) return;
  const began = Date.now();
  const impatient = Promise.withResolvers<never>();
  const timer = setTimeout(() => impatient.reject(new Error("the reader is too slow")), taker.patienceMs);
  try {
    await Promise.race([taker.writer.write(chunk), impatient.promise]);
    taker.patienceMs -= Date.now() - began;
  } catch (error) {
    leave(taker, error);
  } finally {
    clearTimeout(timer);
  }
}

function leave(taker: Taker, why: unknown): void {
  if (taker.isGone) return;
  taker.isGone = true;
  void taker.writer.abort(why).catch(() => undefined);
}
