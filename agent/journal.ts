import { appendFileSync } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { wireText } from "@gpux/protocol/wire";
import { z } from "zod";

/**
 * An append-only file of JSON lines, each led by the CRC-32 of its JSON. What `sync` has resolved for is on the disk;
 * what was only appended survives a kill of the process as soon as the write has left it, but not a loss of power.
 *
 * A crash can tear the end of the file, and the pages of one unsynced write can reach the disk in any order. So the
 * first line that does not check ends the journal: everything behind it belongs to a write that nobody was told of.
 */
export interface Journal<Entry> {
  append(entry: Entry): void;
  /** Resolves when all that was appended so far has left this process: a kill of it takes nothing of that any more. */
  written(): Promise<void>;
  /** Resolves when all that was appended so far is on the disk; calls that overlap share one fdatasync. */
  sync(): Promise<void>;
  /** Replaces the whole journal, atomically. `entries` must say all that was appended so far. */
  rewrite(entries: readonly Entry[]): Promise<void>;
  /** Lines in the file, for deciding when to compact. */
  readonly length: number;
  /** Deletes the file; later calls do nothing. */
  remove(): Promise<void>;
  close(): Promise<void>;
}

export interface OpenedJournal<Entry> {
  readonly journal: Journal<Entry>;
  readonly entries: Entry[];
  /** Bytes of a torn end that were cut off. */
  readonly cutBytes: number;
}

/** One line of the file. */
export function encodeLine(json: string): string {
  return `${crc32(json).toString(16).padStart(8, "0")} ${json}\n`;
}

/** The lines that check, up to the first that does not, and how many bytes they take. */
export function decodeLines(bytes: Buffer): { texts: string[]; good: number } {
  const texts: string[] = [];
  let good = 0;
  for (;;) {
    const end = bytes.indexOf(10, good);
    if (end === -1) return { texts, good };
    const line = bytes.toString("utf8", good, end);
    const json = line.slice(9);
    if (encodeLine(json) !== `${line}\n`) return { texts, good };
    texts.push(json);
    good = end + 1;
  }
}

/** Its entries as they stand on the disk, for who only looks: a torn end is left as it is. */
export async function readJournal<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
): Promise<z.output<Schema>[]> {
  return decodeLines(await readFile(path)).texts.map((text) => schema.parse(JSON.parse(text)));
}

/**
 * Opens or creates the file. Throws when the disk fails, or when a line that checks does not fit the schema: then
 * another version wrote it, and going on would forget what it says.
 */
export async function openJournal<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
): Promise<OpenedJournal<z.output<Schema>>> {
  type Entry = z.output<Schema>;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const before = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return Buffer.alloc(0);
    throw error;
  });
  const { texts, good } = decodeLines(before);
  const entries = texts.map((text, line) => {
    const parsed = schema.safeParse(JSON.parse(text));
    if (!parsed.success) throw new Error(`${path}, line ${line + 1}: ${z.prettifyError(parsed.error)}`);
    return parsed.data;
  });

  let file = await open(path, "a", 0o600);
  if (good < before.length) await file.truncate(good);
  if (before.length === 0) await syncFolder(path);

  const encode = (entry: Entry): string => encodeLine(wireText(entry));
  let length = texts.length;
  /** Lines that wait for their turn to be written. */
  type Batch = { lines: string[] };
  let batch: Batch | null = null;
  let unsynced = false;
  let over = false;
  // All that touches the file runs in this chain; once one step fails, every later one fails alike.
  let tail: Promise<void> = Promise.resolve();
  let syncing: Promise<void> | null = null;

  const inTurn = (step: () => Promise<void>): Promise<void> => {
    tail = tail.then(step);
    // Whoever waits for a sync hears of the failure; here it only must not count as unhandled.
    tail.catch(() => {});
    return tail;
  };
  const write = (due: Batch): void => {
    if (batch === due) batch = null;
    const { lines } = due;
    due.lines = [];
    if (over || lines.length === 0) return;
    unsynced = true;
    // Into the system's memory, in microseconds: a worker thread's turn would cost ten times as much.
    appendFileSync(file.fd, lines.join(""));
  };

  const journal: Journal<Entry> = {
    append(entry) {
      if (over) return;
      length += 1;
      if (batch === null) {
        const fresh: Batch = { lines: [] };
        batch = fresh;
        void inTurn(async () => write(fresh));
      }
      batch.lines.push(encode(entry));
    },
    written() {
      if (batch === null) return tail;
      const due = batch;
      return inTurn(async () => write(due));
    },
    sync() {
      syncing ??= inTurn(async () => {
        // An append from here on belongs to the next round.
        syncing = null;
        if (batch !== null) write(batch);
        if (!unsynced || over) return;
        unsynced = false;
        await file.datasync();
      });
      return syncing;
    },
    rewrite(next) {
      if (over) return Promise.resolve();
      const text = next.map(encode).join("");
      length = next.length;
      // What waits is said by `next`; what comes later must go to the new file, so to a batch of its own.
      if (batch !== null) batch.lines = [];
      batch = null;
      return inTurn(async () => {
        if (over) return;
        const fresh = await writeBeside(path, text);
        await rename(`${path}.new`, path);
        await syncFolder(path);
        await file.close();
        file = fresh;
        unsynced = false;
      });
    },
    get length() {
      return length;
    },
    remove() {
      return inTurn(async () => {
        if (over) return;
        over = true;
        await file.close();
        await rm(path, { force: true });
        await syncFolder(path);
      });
    },
    close() {
      return inTurn(async () => {
        if (batch !== null) write(batch);
        if (over) return;
        over = true;
        if (unsynced) await file.datasync();
        await file.close();
      });
    },
  };
  return { journal, entries, cutBytes: before.length - good };
}

async function writeBeside(path: string, text: string): Promise<FileHandle> {
  await rm(`${path}.new`, { force: true });
  const fresh = await open(`${path}.new`, "a", 0o600);
  await fresh.appendFile(text);
  await fresh.datasync();
  return fresh;
}

/** A new name is durable only when its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  await folder.sync().finally(() => folder.close());
}
