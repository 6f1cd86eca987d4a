import fc from "fast-check";
import { expect, test } from "vitest";
import { Heap } from "./heap.ts";
import { LaneList } from "./lane-list.ts";
import type { Lane, Listing } from "./offer-class.ts";
import { CPU_TIERS, covers, Histogram, MEMORY_TIERS, packed, VRAM_TIERS } from "./shape.ts";
import { entry } from "./testing/entries.ts";

test("a heap gives its items in order, whichever were taken out before", () => {
  const anyOperation = fc.tuple(fc.boolean(), fc.nat(30));
  fc.assert(
    fc.property(fc.array(anyOperation, { maxLength: 60 }), fc.nat(10), (operations, most) => {
      const heap = new Heap<{ value: number; position: number }>((a, b) => a.value < b.value);
      const items: { value: number; position: number }[] = [];
      for (const [adds, n] of operations) {
        const known = items.findIndex(({ value }) => value === n);
        const item = items[known];
        if (adds && item === undefined) {
          const added = { value: n, position: 0 };
          items.push(added);
          heap.push(added);
        } else if (!adds && item !== undefined) {
          items.splice(known, 1);
          heap.remove(item);
        }
      }
      const sorted = items.map(({ value }) => value).sort((a, b) => a - b);
      const walked: number[] = [];
      heap.walk(({ value }) => walked.push(value) <= most);
      expect(walked).toEqual(sorted.slice(0, most + 1));
      expect([heap.size, heap.first?.value]).toEqual([sorted.length, sorted[0]]);
    }),
  );
});

test("one comparison of packed sizes says what comparing each tier would", () => {
  const sizes = fc.record({
    gpus: fc.nat(64),
    vramMb: fc.constantFrom(0, 12_000, 24_000, 512_000),
    cpu: fc.constantFrom(0, 8, 16, 1_024),
    memoryGb: fc.constantFrom(0, 32, 64, 16_384),
    isolation: fc.constantFrom("process" as const, "container" as const, "vm" as const, "tee" as const),
  });
  const rank = { process: 0, container: 1, vm: 2, tee: 3 };
  fc.assert(
    fc.property(sizes, sizes, (has, wanted) => {
      const each =
        has.gpus >= wanted.gpus &&
        has.vramMb >= wanted.vramMb &&
        has.cpu >= wanted.cpu &&
        has.memoryGb >= wanted.memoryGb &&
        rank[has.isolation] >= rank[wanted.isolation];
      expect(covers(packed(has), packed(wanted))).toBe(each);
    }),
  );
});

test("a histogram counts what lies below any bound, on a tier and between two", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(40)), fc.nat(40), fc.nat(45), (values, taken, bound) => {
      const histogram = new Histogram(CPU_TIERS);
      for (const value of [...values, taken]) histogram.add(value, 1);
      histogram.add(taken, -1);
      expect(histogram.below(bound)).toBe(values.filter((value) => value < bound).length);
    }),
  );
});

test("a tier is the highest step that a value reaches", () => {
  for (const [tiers, steps] of [
    [CPU_TIERS, [0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1_024]],
    [MEMORY_TIERS, [0, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 16_384]],
  ] as const) {
    for (const value of [0, 1, 3, 4, 5, 7, 8, 1_023, 1_024, 1_025, 16_383, 16_384, 65_536, 2 ** 40]) {
      expect(tiers.of(value)).toBe(steps.findLastIndex((step) => step <= value));
      expect(tiers.has(value)).toBe(steps.some((step) => step === value));
    }
  }
  expect([11_999, 12_000, 4_194_304].map((mb) => VRAM_TIERS.of(mb))).toEqual([6, 7, 23]);
});

const anyMove = fc.record({
  node: fc.integer({ min: 1, max: 200 }),
  gpus: fc.integer({ min: 0, max: 4 }),
  cpu: fc.constantFrom(4, 8, 16),
  price: fc.integer({ min: 1, max: 40 }),
  weight: fc.constantFrom(1, 2),
  leaves: fc.boolean(),
});

test("a list gives its lanes cheapest first and its largest shapes, whatever came, moved and went", () => {
  fc.assert(
    fc.property(fc.array(anyMove, { minLength: 1, maxLength: 300 }), fc.nat(4), (moves, gpus) => {
      const list = new LaneList();
      const listed = new Map<number, { listing: Listing; gpus: number; cost: number; shape: number }>();
      for (const { node, gpus: free, cpu, price, weight, leaves } of moves) {
        const known = listed.get(node);
        if (known !== undefined && leaves) {
          list.remove(known.listing);
          listed.delete(node);
          continue;
        }
        if (known !== undefined) {
          list.move(known.listing, free);
          listed.set(node, { ...known, gpus: free, shape: (known.shape & ~0x7f) | free });
          continue;
        }
        const added = entry(node, { price, offer: { cpu } });
        const { offer } = added;
        const listing = list.add({ vramMb: 0, offer, prices: offer.prices, weight }, free, {
          entry: added,
          vramMb: 0,
          capacity: 4,
          gpuHour: BigInt(price),
          gpuKey: price,
          reliability: 0,
        });
        const shape = packed({
          gpus: free,
          cpu,
          vramMb: 0,
          memoryGb: offer.memory_gb,
          isolation: offer.isolation,
        });
        listed.set(node, { listing, gpus: free, cost: price * weight, shape });
      }
      const wanted = packed({ gpus, cpu: 8, vramMb: 0, memoryGb: 0, isolation: "process" });
      const fitting = [...listed.values()].filter(({ shape }) => covers(shape, wanted));
      expect(list.covers(wanted)).toBe(fitting.length > 0);
      expect(list.isEmpty).toBe(listed.size === 0);
      const lanes: Lane[] = [];
      list.search({ wanted, bound: Number.POSITIVE_INFINITY, look: (lane) => lanes.push(lane) });
      const heads = lanes.map(({ head }) => head);
      expect(heads).toEqual(heads.toSorted((a, b) => a - b));
      const found = lanes.flatMap((lane) =>
        lane.heap.items.map((listing) => [listing, lane.gpus, lane.shape]),
      );
      expect(new Set(found.map(([listing]) => listing))).toEqual(
        new Set(fitting.map(({ listing }) => listing)),
      );
      expect(found).toHaveLength(fitting.length);
      for (const { listing, gpus: free, shape } of fitting)
        expect([listing.lane.gpus, listing.lane.shape]).toEqual([free, shape]);
      const cheapest = Math.min(...fitting.map(({ cost }) => cost));
      expect(heads[0] ?? Number.POSITIVE_INFINITY).toBe(cheapest);
    }),
    { numRuns: 300 },
  );
});
