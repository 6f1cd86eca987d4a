import fc from "fast-check";
import { expect, test } from "vitest";
import { freeOf, type Share, shortOf } from "./capacity.ts";
import type { Gpu } from "./resources.ts";

const card = (model: string, driver = "1"): Gpu => ({
  model,
  reported: model,
  vram_mb: 24_000,
  driver,
  backend: "vulkan",
  software: false,
});
const machine = { gpus: [card("A"), card("A"), card("B")], cpu: 8, memory_gb: 32 };
const share = (gpus: Gpu[], cpu = 0, memory_gb = 0, count = gpus.length): Share => ({
  gpus,
  resources: { gpus: count, cpu, memory_gb },
});
const models = (gpus: readonly Gpu[]) => gpus.map((gpu) => gpu.model);

test("a share takes its very cards, cores and memory", () => {
  const free = freeOf(machine, [share([card("B")], 3, 10)]);
  expect([models(free.gpus), free.cpu, free.memory_gb]).toEqual([["A", "A"], 5, 22]);
});

test("no card is sold twice, though others are free", () => {
  const free = freeOf(machine, [share([card("B")])]);
  expect(shortOf(free, share([card("B")]))).toBe("gpus");
  expect(shortOf(free, share([card("A"), card("A")]))).toBeNull();
});

test("each kind that is short is named", () => {
  const free = freeOf(machine, [share([card("A")], 5, 30)]);
  expect(shortOf(free, share([card("A")], 4))).toBe("cpu");
  expect(shortOf(free, share([card("A")], 3, 3))).toBe("memory_gb");
  expect(shortOf(free, share([card("A")], 3, 2))).toBeNull();
});

test("a card that is described otherwise by now, or was only counted, still takes one", () => {
  expect(models(freeOf(machine, [share([card("B", "2")])]).gpus)).toEqual(["A", "A"]);
  expect(models(freeOf(machine, [share([card("C")])]).gpus)).toEqual(["A", "A"]);
  // Counted ones come last: they leave the named cards to whom they were sold.
  expect(models(freeOf(machine, [share([], 0, 0, 1), share([card("B")])]).gpus)).toEqual(["A"]);
});

test("QTE-4 whatever was given out, the parts never add up to more than the machine", () => {
  const cards = fc.array(fc.constantFrom(card("A"), card("B"), card("B", "2"), card("C")), { maxLength: 3 });
  const shares = fc.array(
    fc
      .tuple(cards, fc.nat(4), fc.nat(12), fc.nat(2))
      .map(([gpus, cpu, memory, more]) => share(gpus, cpu, memory, gpus.length + more)),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(shares, (asked) => {
      const given: Share[] = [];
      for (const each of asked) {
        const free = freeOf(machine, given);
        if (shortOf(free, each) !== null) continue;
        given.push(each);
        const sum = (kind: "gpus" | "cpu" | "memory_gb") =>
          given.reduce((total, { resources }) => total + resources[kind], 0);
        expect(freeOf(machine, given).gpus.length).toBe(machine.gpus.length - sum("gpus"));
        expect(sum("cpu")).toBeLessThanOrEqual(machine.cpu);
        expect(sum("memory_gb")).toBeLessThanOrEqual(machine.memory_gb);
      }
    }),
  );
});
