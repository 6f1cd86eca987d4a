import fc from "fast-check";
import { expect, test } from "vitest";
import { ClassList } from "./class-list.ts";
import { Heap } from "./heap.ts";
import { type Listing, OfferClass } from "./offer-class.ts";
import { CPU_TIERS, covers, Histogram, packed } from "./shape.ts";
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

test("the largest shapes of a list speak for all of its classes, also when the largest go", () => {
  const prices = { gpu_hour: 1n, core_hour: 0n, gb_hour: 0n };
  const anyShape = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.constantFrom(4, 8, 16), fc.boolean());
  fc.assert(
    fc.property(fc.array(anyShape, { maxLength: 20 }), anyShape, (events, [gpus, cpu]) => {
      const list = new ClassList();
      const listed = new Map<string, Listing>();
      for (const [n, [free, cores, adds]] of events.entries()) {
        const key = `${free}/${cores}`;
        const { offer } = entry(n, { offer: { cpu: cores } });
        const offerClass = list.get(key) ?? new OfferClass(key, { gpus: free, vramMb: 0, offer });
        const known = listed.get(key);
        if (adds && known === undefined) {
          const sizes = { vramMb: 0, capacity: free };
          const add = () => offerClass.add(entry(n, { offer: { cpu: cores } }), sizes, prices, 1, 0);
          listed.set(key, list.change(offerClass, add));
        } else if (!adds && known !== undefined) {
          list.change(offerClass, () => offerClass.remove(known));
          listed.delete(key);
        }
      }
      const wanted = packed({ gpus, cpu, vramMb: 0, memoryGb: 0, isolation: "process" });
      expect(list.covers(wanted)).toBe(list.classes.some(({ shape }) => covers(shape, wanted)));
      expect(list.classes).toHaveLength(listed.size);
    }),
  );
});
