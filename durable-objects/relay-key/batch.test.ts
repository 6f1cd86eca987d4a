import { INTENT_KINDS, type IntentKind } from "@gpux/protocol/intent";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { planBatch, type Waiting } from "./batch.ts";
import { Policy } from "./policy.ts";

const NOW = 1_800_000_000_000;
const policy = Policy.parse({ settleWindowMs: 60_000, closeWindowMs: 1_000, withdrawWindowMs: 600_000 });
const world = { now: NOW, arriving: 0, room: true };

const waiting = (kind: IntentKind, name: string, change: Partial<Waiting> = {}): Waiting => ({
  key: `${kind}:${name}`,
  kind,
  since: NOW,
  alone: false,
  value: null,
  gas: 100_000n,
  claims: [`${kind}:${name}`],
  ...change,
});

describe("when a transaction goes", () => {
  const cases: [
    title: string,
    queue: Waiting[],
    change: Partial<typeof world>,
    goes: boolean,
    wake: number | null,
  ][] = [
    ["nothing waits", [], {}, false, null],
    ["a funding alone goes at once", [waiting("fund", "a")], {}, true, null],
    ["a funding waits for who is coming", [waiting("fund", "a")], { arriving: 1 }, false, NOW + 2_000],
    ["but not for long", [waiting("fund", "a", { since: NOW - 2_000 })], { arriving: 1 }, true, null],
    ["an exit waits for nobody", [waiting("exit", "a")], { arriving: 5 }, true, null],
    ["nor does a meter that resigns", [waiting("revoke_meter", "a")], { arriving: 5 }, true, null],
    ["who goes alone waits for nobody", [waiting("fund", "a", { alone: true })], { arriving: 5 }, true, null],
    ["a settlement waits its window", [waiting("settle", "a")], {}, false, NOW + 60_000],
    ["and no longer", [waiting("settle", "a", { since: NOW - 60_000 })], {}, true, null],
    ["what moves much waits for nobody", [waiting("withdraw", "a", { value: 20_000_000n })], {}, true, null],
    ["with no room nothing goes", [waiting("exit", "a")], { room: false }, false, null],
  ];
  test.each(cases)("%s", (_title, queue, change, goes, wakeAt) => {
    const plan = planBatch(queue, { ...world, ...change }, policy);
    expect({ goes: plan.batch !== null, wakeAt: plan.wakeAt }).toEqual({ goes, wakeAt });
  });
});

describe("who comes along", () => {
  test("everybody who may, each after what it rests on", () => {
    const queue = [
      waiting("withdraw", "a"),
      waiting("close", "a"),
      waiting("settle", "b"),
      waiting("fund", "c"),
    ];
    expect(planBatch(queue, world, policy).batch).toEqual(["fund:c", "settle:b", "close:a", "withdraw:a"]);
  });

  test("credit is there before it is spent, and back before it is released", () => {
    const kinds = [...INTENT_KINDS].reverse();
    const urgent = policy.urgentValue;
    const queue = kinds.map((kind) => waiting(kind, "a", { value: urgent }));
    expect(planBatch(queue, world, policy).batch).toEqual([
      "deposit:a",
      "fund:a",
      "allocate:a",
      "settle:a",
      "close:a",
      "exit:a",
      "reclaim:a",
      "release:a",
      "reclaim_credit:a",
      "revoke_meter:a",
      "withdraw:a",
    ]);
  });

  test("not who goes alone, and only one of those that could not be told apart", () => {
    const queue = [
      waiting("fund", "a"),
      waiting("exit", "wallet", { alone: true, since: NOW + 1 }),
      waiting("withdraw", "x", { claims: ["withdraw:0xa"] }),
      waiting("withdraw", "y", { claims: ["withdraw:0xa"] }),
    ];
    expect(planBatch(queue, world, policy).batch).toEqual(["fund:a", "withdraw:x"]);
  });
});

test("a plan holds to its limits whoever waits, and what is due goes", () => {
  const kinds = fc.constantFrom<IntentKind>(...INTENT_KINDS);
  const each = fc.record({
    kind: kinds,
    name: fc.integer({ min: 0, max: 30 }),
    age: fc.integer({ min: 0, max: 700_000 }),
    alone: fc.boolean(),
    gas: fc.bigInt(100_000n, 3_000_000n),
    claim: fc.integer({ min: 0, max: 20 }),
  });
  fc.assert(
    fc.property(fc.array(each, { maxLength: 60 }), fc.integer({ min: 0, max: 3 }), (list, arriving) => {
      const queue = list.map(({ kind, name, age, alone, gas, claim }, index) =>
        waiting(kind, `${name}-${index}`, { since: NOW - age, alone, gas, claims: [`${kind}:${claim}`] }),
      );
      const { batch, wakeAt } = planBatch(queue, { ...world, arriving }, policy);
      if (batch === null) {
        expect(queue.some(({ kind, alone }) => alone || kind === "exit" || kind === "revoke_meter")).toBe(
          false,
        );
        if (queue.length > 0) expect(wakeAt).toBeGreaterThan(NOW);
        return;
      }
      const aboard = batch.flatMap((key) => queue.filter((one) => one.key === key));
      expect(aboard).toHaveLength(new Set(batch).size);
      expect(aboard.length).toBeLessThanOrEqual(20);
      if (aboard.length > 1) {
        expect(aboard.some(({ alone }) => alone)).toBe(false);
        const gas = aboard.reduce((sum, one) => sum + one.gas, 0n);
        expect(gas).toBeLessThanOrEqual(BigInt(policy.batchGas));
      }
      const claims = aboard.flatMap((one) => one.claims);
      expect(new Set(claims).size).toBe(claims.length);
    }),
  );
});
