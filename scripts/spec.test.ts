import { glob, readFile } from "node:fs/promises";
import { expect, test } from "vitest";

const root = new URL("../", import.meta.url);
const read = (path: string) => readFile(new URL(path, root), "utf8");

/** Rows of those tables of docs/SPEC.md that say what comes of bad input and faults, as cells. */
async function faultRows(): Promise<string[][]> {
  const rows: string[][] = [];
  let isInside = false;
  for (const line of (await read("docs/SPEC.md")).split("\n")) {
    if (line.startsWith("| input or fault |")) isInside = true;
    else if (!line.startsWith("|")) isInside = false;
    else if (isInside && !line.startsWith("| ---")) rows.push(line.split("|").slice(1, -1));
  }
  return rows;
}

/** What could go wrong with quotes, orders and leases, as it was asked for; each has its row. */
const FAULTS = [
  "quote used twice",
  "quote expired",
  "quote or order of another account",
  "order larger than the market",
  "two callers race for the last GPU",
  "two orders race for the last node",
  "price moved between quote and lease",
  "agent accepts and vanishes",
  "agent lists what it then declines",
  "agent brings an older attempt's result again",
  "agent reports a running job that the edge does not know",
  "client disconnects at each step",
  "clock of a client ten minutes off",
  "clock of a node ten minutes off",
  "Book shard lost",
  "Node evicted between hold and lease",
];

test("each fault has a row in docs/SPEC.md", async () => {
  const named = (await faultRows()).map(([fault = ""]) => fault.trim());
  expect(new Set(named).size).toBe(named.length);
  for (const fault of FAULTS) expect(named).toContain(fault);
});

test("every test that a row of docs/SPEC.md names by file and title exists, and each row names one", async () => {
  for (const [fault = "", , tests = ""] of await faultRows()) {
    const places = [...tests.matchAll(/`([\w./-]+\.test\.ts)`((?:,? "[^"]+")+)/g)];
    expect(places, fault).not.toEqual([]);
    expect(tests.match(/`/g)?.length, `${fault}: a file without a title`).toBe(2 * places.length);
    for (const [, path = "", titles = ""] of places) {
      const source = await read(path);
      for (const [, title = ""] of titles.matchAll(/"([^"]+)"/g)) expect(source, path).toContain(`"${title}`);
    }
  }
});

test("every rule of docs/SPEC.md is named by a test", async () => {
  const rules = [...(await read("docs/SPEC.md")).matchAll(/^\| ([A-Z]{3,4}-[0-9]+) +\|/gm)].map(
    ([, id = ""]) => id,
  );
  expect(rules.length).toBeGreaterThan(120);
  expect(new Set(rules).size, "an id stands once").toBe(rules.length);
  const files = glob(
    "{agent,bench,cli,contracts,durable-objects,protocol,scripts,sdk,test,workers}/**/*.{test.ts,t.sol}",
    {
      cwd: root,
      // What was built is named after its sources, folders too.
      exclude: (name) => /(^|\/)(node_modules|artifacts|cache)$/.test(name),
    },
  );
  const named = new Set<string>();
  for await (const path of files)
    for (const id of (await read(path)).match(/\b[A-Z]{3,4}-[0-9]+\b/g) ?? []) named.add(id);
  expect(rules.filter((id) => !named.has(id))).toEqual([]);
});
