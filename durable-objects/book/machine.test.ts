import { Address } from "@gpux/protocol/ids";
import { blockersOf, Demand, Offer, ratePerHour } from "@gpux/protocol/resources";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { BookEntry } from "../interfaces.ts";
import { type BookState, find, list, step } from "./machine.ts";

const address = (n: number) => Address.parse(`0x${n.toString(16).padStart(40, "0")}`);

function entry(
  n: number,
  change: Partial<BookEntry> & { price?: number; models?: readonly string[] } = {},
): BookEntry {
  const { price = 1_000, models = ["RTX_4090"], ...rest } = change;
  const offer = Offer.parse({
    gpus: models.map((model) => ({
      model,
      reported: model,
      vram_mb: 24_000,
      driver: "1",
      backend: "vulkan",
      software: false,
    })),
    cpu: 8,
    memory_gb: 32,
    region: "eu-west",
    prices: { gpu_hour: String(price), core_hour: "0", gb_hour: "0" },
    concurrency: 1,
  });
  return {
    node: address(n),
    offer,
    free: models.length,
    provider: address(1_000 + n),
    agentVersion: "1.0.0",
    status: "online",
    lastSeen: 1,
    ...rest,
  };
}

const book = (...entries: BookEntry[]): BookState => {
  let state: BookState = new Map();
  for (const each of entries) state = step(state, { t: "put", entry: each }).next;
  return state;
};
const nodes = (entries: BookEntry[]) => entries.map((each) => Number(each.node));

test("the cheapest offer comes first, then the one with most free GPUs, then the lower address", () => {
  const two = ["RTX_4090", "RTX_4090"];
  const state = book(
    entry(1, { price: 5 }),
    entry(4),
    entry(3),
    entry(2, { models: two }),
    entry(5, { price: 9_000 }),
  );
  expect(nodes(find(state, Demand.parse({}), 10).entries)).toEqual([1, 2, 3, 4, 5]);
  expect(nodes(find(state, Demand.parse({}), 2).entries)).toEqual([1, 2]);
});

test("nodes that are not online are no offers", () => {
  const state = book(entry(1, { status: "offline" }), entry(2, { status: "draining" }));
  expect(find(state, Demand.parse({}), 10)).toEqual({
    entries: [],
    blockers: {},
    offers: 0,
    onlyPrice: 0,
    onlyBusy: 0,
  });
});

test("what does not fit is counted by each condition that it fails", () => {
  const state = book(
    entry(1, { price: 2_000 }),
    entry(2, { price: 2_000, free: 0 }),
    entry(3, { free: 0 }),
    entry(4, { models: ["A100"] }),
  );
  const found = find(state, Demand.parse({ gpu_model: "RTX_4090", max_rate_per_hour: "1500" }), 10);
  expect(found).toEqual({
    entries: [],
    blockers: { price: 2, gpus: 2, gpu_model: 1 },
    offers: 4,
    onlyPrice: 1,
    onlyBusy: 1,
  });
});

test("a node that is too small is not busy: waiting would not help", () => {
  const found = find(book(entry(1)), Demand.parse({ resources: { gpus: 2 } }), 10);
  expect(found).toMatchObject({ blockers: { gpus: 1 }, onlyBusy: 0 });
});

test("an entry that arrives late does not replace a newer one", () => {
  const state = book(entry(1, { lastSeen: 5 }));
  expect(step(state, { t: "put", entry: entry(1, { lastSeen: 4, free: 0 }) })).toEqual({
    ok: true,
    next: state,
    written: null,
  });
  expect(
    step(state, { t: "put", entry: entry(1, { lastSeen: 5, free: 0 }) }).next.get(address(1))?.free,
  ).toBe(0);
});

test("removing a node twice is removing it once", () => {
  const once = step(book(entry(1), entry(2)), { t: "remove", node: address(1) });
  expect(once.written).toBe(address(1));
  expect(step(once.next, { t: "remove", node: address(1) })).toEqual({
    ok: true,
    next: once.next,
    written: null,
  });
});

test("pages of the list hold every node once, whatever their status", () => {
  const state = book(
    ...Array.from({ length: 7 }, (_, n) => entry(n + 1, n % 2 ? { status: "offline" } : {})),
  );
  const seen: number[] = [];
  for (let after: Address | null = null; ; ) {
    const page: BookEntry[] = list(state, after, 3);
    seen.push(...nodes(page));
    after = page.at(-1)?.node ?? null;
    if (after === null) break;
  }
  expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test("find returns exactly the online offers without a blocker, in order of price", () => {
  const anyEntry = fc
    .record({
      n: fc.integer({ min: 1, max: 9 }),
      price: fc.nat(5),
      free: fc.nat(2),
      online: fc.boolean(),
      models: fc.constantFrom(["RTX_4090"], ["A100"], ["A100", "RTX_4090"]),
    })
    .map(({ n, online, ...rest }) => entry(n, { ...rest, status: online ? "online" : "draining" }));
  const anyDemand = fc
    .record(
      { gpu_model: fc.constantFrom("RTX_4090", "A100"), max_rate_per_hour: fc.nat(5).map(String) },
      { requiredKeys: [] },
    )
    .map((demand) => Demand.parse(demand));
  fc.assert(
    fc.property(fc.array(anyEntry, { maxLength: 12 }), anyDemand, (entries, demand) => {
      const state = book(...entries);
      const found = find(state, demand, 100).entries;
      const fitting = [...state.values()].filter(
        (each) =>
          each.status === "online" && blockersOf(each.offer, each.node, each.free, demand).length === 0,
      );
      expect(new Set(found)).toEqual(new Set(fitting));
      const rates = found.map((each) => ratePerHour(each.offer.prices, demand.resources));
      expect(rates.every((rate, i) => rate >= (rates[i - 1] ?? 0n))).toBe(true);
    }),
  );
});
