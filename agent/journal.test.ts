import { appendFile, mkdtemp, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { z } from "zod";
import { decodeLines, encodeLine, type Journal, openJournal } from "./journal.ts";

const Entry = z.strictObject({ n: z.int(), text: z.string() });
type Entry = z.infer<typeof Entry>;

const journals: Journal<Entry>[] = [];
const folders: string[] = [];

afterEach(async () => {
  await Promise.all(journals.splice(0).map((journal) => journal.close()));
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })));
});

async function freshPath(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "gpux-journal-"));
  folders.push(folder);
  return join(folder, "deep", "lease.jsonl");
}

async function opened(path: string) {
  const all = await openJournal(path, Entry);
  journals.push(all.journal);
  return all;
}

async function reopened(path: string): Promise<Entry[]> {
  const { journal, entries } = await openJournal(path, Entry);
  await journal.close();
  return entries;
}

test("what was synced is there after the process forgets it, without a close", async () => {
  const path = await freshPath();
  const { journal } = await opened(path);
  journal.append({ n: 1, text: "a\nb ü" });
  journal.append({ n: 2, text: "" });
  await journal.sync();
  expect(await reopened(path)).toEqual([
    { n: 1, text: "a\nb ü" },
    { n: 2, text: "" },
  ]);
});

test("syncs that overlap with appends each cover what was appended before them", async () => {
  const path = await freshPath();
  const { journal } = await opened(path);
  const seen: Promise<void>[] = [];
  for (let n = 0; n < 50; n += 1) {
    journal.append({ n, text: "x" });
    seen.push(
      journal.sync().then(async () => {
        const { texts } = decodeLines(await readFile(path));
        expect(texts.length).toBeGreaterThan(n);
      }),
    );
    if (n % 7 === 0) await seen[n];
  }
  await Promise.all(seen);
});

test("an end torn at any byte loses the torn line alone, and the journal goes on behind it", async () => {
  const path = await freshPath();
  const whole = [1, 2, 3].map((n) => encodeLine(JSON.stringify({ n, text: "é".repeat(n) })));
  await reopened(path);
  const bytes = Buffer.from(whole.join(""));
  const last = Buffer.byteLength(whole[2] ?? "");
  for (let cut = 1; cut <= last; cut += 1) {
    await writeFile(path, bytes);
    await truncate(path, bytes.length - cut);
    const { journal, entries, cutBytes } = await opened(path);
    expect(entries.map(({ n }) => n)).toEqual([1, 2]);
    expect(cutBytes).toBe(last - cut);
    journal.append({ n: 4, text: "" });
    await journal.close();
    expect((await reopened(path)).map(({ n }) => n)).toEqual([1, 2, 4]);
  }
});

test("a damaged line ends the journal, even with good ones behind it", async () => {
  const path = await freshPath();
  await reopened(path);
  await appendFile(path, encodeLine(JSON.stringify({ n: 1, text: "" })));
  await appendFile(path, encodeLine(JSON.stringify({ n: 2, text: "" })).replace('"n":2', '"n":7'));
  await appendFile(path, encodeLine(JSON.stringify({ n: 3, text: "" })));
  expect((await reopened(path)).map(({ n }) => n)).toEqual([1]);
});

test("a line that checks but is of another version is refused, not skipped", async () => {
  const path = await freshPath();
  await reopened(path);
  await appendFile(path, encodeLine(JSON.stringify({ n: 1, other: true })));
  await expect(openJournal(path, Entry)).rejects.toThrow(/line 1/);
});

test("a rewrite replaces what waits, and what is appended behind it goes to the new file", async () => {
  const path = await freshPath();
  const { journal } = await opened(path);
  journal.append({ n: 1, text: "" });
  const rewritten = journal.rewrite([{ n: 10, text: "all" }]);
  journal.append({ n: 11, text: "" });
  expect(journal.length).toBe(2);
  await Promise.all([rewritten, journal.sync()]);
  expect((await reopened(path)).map(({ n }) => n)).toEqual([10, 11]);
});

test("any mix of appends, syncs and rewrites reads back as its last rewrite and what came after", async () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ do: fc.constant("append" as const), text: fc.string({ unit: "binary" }) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("sync" as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("rewrite" as const), keep: fc.nat(3) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const path = await freshPath();
      const { journal } = await opened(path);
      let model: Entry[] = [];
      let n = 0;
      for (const each of steps) {
        if (each.do === "append") {
          n += 1;
          model.push({ n, text: each.text });
          journal.append({ n, text: each.text });
        } else if (each.do === "sync") await journal.sync();
        else {
          model = model.slice(-each.keep);
          void journal.rewrite(model);
        }
        expect(journal.length).toBe(model.length);
      }
      await journal.close();
      expect(await reopened(path)).toEqual(model);
    }),
    { numRuns: 40 },
  );
});

test("a removed journal leaves no file, and is readable by its owner alone while it lives", async () => {
  const path = await freshPath();
  const { journal } = await opened(path);
  journal.append({ n: 1, text: "" });
  await journal.sync();
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  await journal.remove();
  journal.append({ n: 2, text: "" });
  await journal.sync();
  await expect(stat(path)).rejects.toThrow(/ENOENT/);
});
