import type { Verdict } from "@gpux/protocol/challenge/verdict";
import type { Address } from "@gpux/protocol/ids";
import { Demand } from "@gpux/protocol/resources";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { BookEntry, FindOptions } from "../interfaces.ts";
import { DAY_MS, NEVER_SEEN, observed, type Presence } from "../presence.ts";
import { Book, REFRESH_MS } from "./machine.ts";
import { bruteForce } from "./testing/brute-force.ts";
import { address, entry } from "./testing/entries.ts";

const NOW = 20_000 * DAY_MS;

const bookOf = (...entries: BookEntry[]): Book => {
  const book = new Book();
  for (const each of entries) book.apply({ t: "put", entry: each }, NOW);
  return book;
};
const numbers = (entries: readonly BookEntry[]) => entries.map((each) => Number(each.node));
const ask = (book: Book, demand: object, limit = 10, now = NOW) =>
  book.find(Demand.parse(demand), limit, now);

/** As of a node that was there for `on` of the four days until NOW. */
const present = (on: number): Presence =>
  observed(
    observed(observed(NEVER_SEEN, NOW - 4 * DAY_MS, "off"), NOW - 4 * DAY_MS * (1 - on), "on"),
    NOW,
    "off",
  );

test("MKT-1 the cheapest offer comes first, then the one with most free GPUs, then the lower address", () => {
  const two = ["RTX_4090", "RTX_4090"];
  const book = bookOf(
    entry(1, { price: 5 }),
    entry(4),
    entry(3),
    entry(2, { models: two }),
    entry(5, { price: 9_000 }),
  );
  expect(numbers(ask(book, {}).entries)).toEqual([1, 2, 3, 4, 5]);
  expect(numbers(ask(book, {}, 2).entries)).toEqual([1, 2]);
});

test("MKT-1 a start counts as if the lease lasted an hour, and a price per hour is asked for without it", () => {
  const book = bookOf(
    entry(1, { price: 1_000, offer: { start_price: "50" } }),
    entry(2, { price: 1_040 }),
    entry(3, { price: 1_000, offer: { start_price: "30" } }),
    entry(4, { price: 1_030, offer: { start_price: "0" } }),
  );
  const found = (demand: object, options: FindOptions = {}) =>
    numbers(book.find(Demand.parse(demand), 9, NOW, options).entries);
  expect(found({})).toEqual([3, 4, 2, 1]);
  expect(found({ resources: { gpus: 1, cpu: 1 } }), "whatever else is in the rate").toEqual([3, 4, 2, 1]);
  expect(found({ max_rate_per_hour: "1000" })).toEqual([3, 1]);
  const cheap = { where: [{ field: "start_usd", operator: "lte", values: [30n] }] } as const;
  expect(found({}, cheap)).toEqual([3, 4, 2]);
});

test("MKT-1 a node that is often away has to be cheaper by what that costs", () => {
  const steady = entry(1, { price: 1_000, presence: present(1) });
  const rare = (price: number) => entry(2, { price, presence: present(0.7) });
  // Scores 0.98 and 0.74: weights 1.020 and 1.538.
  expect(numbers(ask(bookOf(steady, rare(664)), {}).entries)).toEqual([1, 2]);
  expect(numbers(ask(bookOf(steady, rare(663)), {}).entries)).toEqual([2, 1]);
});

test("MKT-6 weights follow the scores without any event of the node", () => {
  const steady = entry(1, { price: 1_100, presence: present(1) });
  const newcomer = entry(2, { price: 1_040, presence: observed(NEVER_SEEN, NOW, "off") });
  const book = bookOf(steady, newcomer);
  expect(numbers(ask(book, {}).entries)).toEqual([1, 2]);
  expect(numbers(ask(book, {}, 10, NOW + 5 * DAY_MS).entries)).toEqual([2, 1]);
  expect(REFRESH_MS).toBeLessThan(DAY_MS);
});

test("nodes that are not online are no offers", () => {
  const book = bookOf(entry(1, { status: "offline" }), entry(2, { status: "draining" }));
  expect(ask(book, {})).toEqual({ entries: [], blockers: {}, offers: 0, onlyPrice: 0, onlyBusy: 0 });
});

test("MKT-3 what does not fit is counted by the conditions of shape, and by price where the shape fits", () => {
  const book = bookOf(
    entry(1, { price: 2_000 }),
    entry(2, { price: 2_000, free: 0 }),
    entry(3, { free: 0 }),
    entry(4, { models: ["A100"] }),
  );
  expect(ask(book, { gpu_model: "RTX_4090", max_rate_per_hour: "1500" })).toEqual({
    entries: [],
    blockers: { gpus: 2, gpu_model: 1, price: 1 },
    offers: 4,
    onlyPrice: 1,
    onlyBusy: 1,
  });
});

test("a node that is too small is not busy: waiting would not help", () => {
  expect(ask(bookOf(entry(1)), { resources: { gpus: 2 } })).toMatchObject({
    blockers: { gpus: 1 },
    onlyBusy: 0,
  });
});

test("sizes between two tiers are looked at exactly", () => {
  const book = bookOf(
    entry(1, { vram: 24_564, offer: { cpu: 9, memory_gb: 37 } }),
    entry(2, { vram: 24_100, offer: { cpu: 8, memory_gb: 33 } }),
  );
  expect(numbers(ask(book, { min_vram_mb: 24_200 }).entries)).toEqual([1]);
  expect(numbers(ask(book, { resources: { cpu: 9 } }).entries)).toEqual([1]);
  expect(ask(book, { resources: { memory_gb: 38 } })).toMatchObject({ entries: [], blockers: { memory: 2 } });
  expect(ask(book, { resources: { cpu: 9 }, min_vram_mb: 24_565 })).toMatchObject({
    blockers: { cpu: 1, vram: 2 },
  });
});

test("who names a node is told of that node", () => {
  const book = bookOf(entry(1, { price: 5 }), entry(2, { free: 0 }));
  expect(numbers(ask(book, { node: address(1) }).entries)).toEqual([1]);
  expect(ask(book, { node: address(2) })).toMatchObject({ blockers: { gpus: 1 }, offers: 1, onlyBusy: 1 });
  expect(ask(book, { node: address(1), max_rate_per_hour: "4" })).toMatchObject({
    blockers: { price: 1 },
    onlyPrice: 1,
  });
  expect(ask(book, { node: address(3) })).toMatchObject({ blockers: { node: 1 }, offers: 0 });
});

test("an offer is sold in the tiers that it has prices for", () => {
  const yieldable = { gpu_hour: "400", core_hour: "0", gb_hour: "0" };
  const book = bookOf(entry(1), entry(2, { price: 2_000, offer: { yieldable } }));
  expect(numbers(ask(book, {}).entries)).toEqual([1, 2]);
  expect(numbers(ask(book, { tier: "yieldable" }).entries)).toEqual([2]);
  expect(ask(book, { tier: "yieldable", max_rate_per_hour: "399" })).toMatchObject({
    blockers: { tier: 1, price: 1 },
    onlyPrice: 1,
  });
});

test("MKT-4 a demand that nothing met is told to the nodes that it passed by, for an hour", () => {
  const book = bookOf(entry(1), entry(2, { models: ["A100"] }));
  const demand = Demand.parse({ gpu_model: "RTX_4090", resources: { cpu: 64 } });
  book.find(demand, 1, NOW, { toBuy: true });
  book.find(demand, 1, NOW + 1);
  book.find(Demand.parse({ region: "us-east" }), 1, NOW + 2, { toBuy: true });
  expect(book.skipped(address(1), NOW + 3)).toEqual({ cpu: 1, region: 1 });
  expect(book.skipped(address(2), NOW + 3)).toEqual({ cpu: 1, region: 1, gpu_model: 1 });
  expect(book.skipped(address(3), NOW + 3)).toEqual({});
  expect(book.skipped(address(1), NOW + 3_600_001)).toEqual({ region: 1 });
});

test("an entry that arrives late does not replace a newer one", () => {
  const book = bookOf(entry(1, { lastSeen: 5 }));
  expect(book.apply({ t: "put", entry: entry(1, { lastSeen: 4, free: 0 }) }, NOW)).toBeNull();
  expect(book.get(address(1))?.free).toBe(1);
  expect(book.apply({ t: "put", entry: entry(1, { lastSeen: 5, free: 0 }) }, NOW)).toBe(address(1));
  expect(book.get(address(1))?.free).toBe(0);
});

test("removing a node twice is removing it once", () => {
  const book = bookOf(entry(1), entry(2));
  expect(book.apply({ t: "remove", node: address(1) }, NOW)).toBe(address(1));
  expect(book.apply({ t: "remove", node: address(1) }, NOW)).toBeNull();
  expect(numbers(ask(book, {}).entries)).toEqual([2]);
});

test("pages of the list hold every node once, whatever their status", () => {
  const book = bookOf(
    ...Array.from({ length: 7 }, (_, n) => entry(n + 1, n % 2 ? { status: "offline" } : {})),
  );
  const seen: number[] = [];
  for (let after: Address | null = null; ; ) {
    const page: BookEntry[] = book.list(after, 3);
    seen.push(...numbers(page));
    after = page.at(-1)?.node ?? null;
    if (after === null) break;
  }
  expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test("MKT-10 who asks for verified GPUs gets those that a challenge vouches for, as many as it vouches for, and is told of the others", () => {
  const book = new Book();
  const seen: Verdict = { result: "verified", gops: 5_000, at: NOW - DAY_MS };
  book.apply({ t: "put", entry: entry(1, { price: 900, challenge: { ...seen, result: "slow" } }) }, NOW);
  const two = entry(2, { price: 950, models: ["RTX_4090", "RTX_4090"], challenge: seen });
  book.apply({ t: "put", entry: two }, NOW);
  const ask = (gpus: number, now = NOW) =>
    book.find(Demand.parse({ verified: true, resources: { gpus } }), 5, now);
  expect(ask(1).entries).toEqual([two]);
  expect(ask(2)).toMatchObject({ entries: [], blockers: { verified: 1, gpus: 1 } });
  expect(ask(1, NOW + 7 * DAY_MS)).toMatchObject({ entries: [], blockers: { verified: 2 } });
  const any = book.find(Demand.parse({}), 5, NOW);
  expect(any.entries.map(({ node }) => node)).toEqual([address(1), address(2)]);
  const where = [{ field: "verified", operator: "eq", values: ["false"] }] as const;
  expect(book.find(Demand.parse({}), 5, NOW, { where }).entries).toMatchObject([{ node: address(1) }]);
});

const pick = fc.constantFrom;
const anyPrices = fc.record({
  gpu_hour: fc.nat(6).map(String),
  core_hour: pick("0", "1"),
  gb_hour: pick("0", "2"),
});
const shown = (result: Verdict["result"], days = 0): Verdict => ({
  result,
  gops: 1,
  at: NOW + days * DAY_MS,
});
const anyEntry = fc
  .record({
    n: fc.integer({ min: 1, max: 9 }),
    free: fc.nat(3),
    vram: pick(8_000, 23_900, 24_000, 24_564),
    status: pick("online" as const, "online" as const, "draining" as const),
    models: pick(["A"], ["B"], ["B", "B"], ["B", "A"], ["B", "B", "B"]),
    provider: pick(address(50), address(51), address(52)),
    presence: pick(NEVER_SEEN, present(1), present(0.5), present(0.1)),
    challenge: pick(null, null, shown("verified"), shown("verified", -6), shown("slow")),
    start: pick(0n, 0n, 1n),
    offer: fc.record({
      prices: anyPrices,
      yieldable: fc.option(anyPrices),
      cpu: pick(4, 7, 8, 9),
      memory_gb: pick(16, 31, 32, 40),
      region: pick("eu-west", "us-east"),
      gpus_per_lease: pick(1, 2, 64),
      isolation: pick("process", "container", "vm", "tee"),
      features: pick([], ["webgpu"], ["webgpu", "shader-f16"]),
      models: pick([], ["sdxl"]),
      duration_s: pick({ min: 0, max: 7_200 }, { min: 600, max: 600 }),
    }),
  })
  .map(({ n, models, start, ...rest }) => {
    const made = entry(n, {
      ...rest,
      models: models.map((model) => `MODEL_${model}`),
      free: Math.min(rest.free, models.length),
    });
    // More than such small prices allow: an index takes what it is given.
    return { ...made, offer: { ...made.offer, start_price: start } };
  });
const anyEvent = fc.oneof(
  { weight: 6, arbitrary: anyEntry.map((each) => ({ t: "put" as const, entry: each })) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 1, max: 9 }).map((n) => ({ t: "remove" as const, node: address(n) })),
  },
  {
    // A node publishes again: a hold, somebody who comes or goes, another payout address, or nothing new at all.
    weight: 8,
    arbitrary: fc
      .tuple(
        fc.integer({ min: 1, max: 9 }),
        fc.record({
          free: fc.nat(3),
          ...{
            presence: fc.constantFrom(1, 0.9, 0.7).map(present),
            challenge: pick(null, shown("verified")),
            provider: pick(address(50), address(51)),
          },
        }),
        fc.subarray(["free", "presence", "challenge", "provider"] as const),
      )
      .map(([n, all, changed]) => ({
        t: "again" as const,
        ...{ node: address(n), change: Object.fromEntries(changed.map((key) => [key, all[key]])) },
      })),
  },
);
const anyDemand = fc
  .record(
    {
      resources: fc.record(
        { gpus: fc.integer({ min: 1, max: 3 }), cpu: pick(0, 7, 8), memory_gb: pick(0, 31, 32) },
        { requiredKeys: [] },
      ),
      tier: pick("firm", "yieldable"),
      gpu_model: pick("MODEL_A", "MODEL_B"),
      min_vram_mb: pick(24_000, 24_200),
      region: pick("eu-west", "us-east"),
      isolation: pick("process", "vm"),
      features: pick(["webgpu"], ["shader-f16", "webgpu"]),
      model: pick("sdxl"),
      min_reliability: pick(0.1, 0.5, 0.95),
      duration_s: pick(600, 3_600),
      verified: pick(true, false),
      exclude: pick({ nodes: [address(1), address(2)] }, { providers: [address(50)] }),
      max_rate_per_hour: fc.nat(90).map(String),
    },
    { requiredKeys: [] },
  )
  .map((demand) => Demand.parse(demand));

test("MKT-1 MKT-3 a Book answers what looking at every row would, after any events", () => {
  fc.assert(
    fc.property(
      fc.array(anyEvent, { maxLength: 25 }),
      fc.array(fc.tuple(anyDemand, fc.integer({ min: 1, max: 4 }), fc.boolean()), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.nat(3 * DAY_MS),
      (events, demands, later) => {
        const book = new Book();
        const rows = new Map<Address, BookEntry>();
        for (const event of events) {
          if (event.t === "again") {
            const known = rows.get(event.node);
            if (known === undefined) continue;
            const { gpus } = known.offer;
            const again = structuredClone({ ...known, ...event.change });
            const put = { ...again, free: Math.min(again.free, gpus.length) };
            book.apply({ t: "put", entry: put }, NOW);
            rows.set(event.node, put);
            continue;
          }
          book.apply(event, NOW);
          if (event.t === "put") rows.set(event.entry.node, event.entry);
          else rows.delete(event.node);
        }
        for (const [demand, limit, distinctProviders] of demands) {
          // Scores are as fresh as the last refresh, which the first demand brings.
          const now = NOW + later;
          const found = book.find(demand, limit, now, { distinctProviders });
          expect(found).toEqual(bruteForce(rows, demand, limit, now, { distinctProviders }));
        }
      },
    ),
    { numRuns: 500 },
  );
});
