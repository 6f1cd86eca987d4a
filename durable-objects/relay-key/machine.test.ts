import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { duty, type IntentEvent, type IntentState, step } from "./machine.ts";

const NOW = 1_800_000_000_000;
const LATER = NOW + 3_600_000;
const hash = (n: number) => `0x${n.toString(16).padStart(64, "0")}` as const;
const fulfilment = {
  blockNumber: 7,
  blockHash: hash(7),
  blockTimestamp: 1_800_000_000,
  result: {
    kind: "withdraw" as const,
    account: "0x00000000000000000000000000000000000000a1" as const,
    amount: "5",
  },
};
const cost = { gasUsed: "1", effectiveGasPrice: "1", l1Fee: "1", calldataBytes: 4 };
const nonce = 3;

const events: Record<IntentEvent["t"], IntentEvent> = {
  submitted: { t: "submitted" },
  held: { t: "held", until: LATER },
  verified: { t: "verified", alone: false },
  refused: { t: "refused", code: "stale", detail: "" },
  simulated: { t: "simulated", value: 5n },
  unfit: { t: "unfit" },
  signed: { t: "signed", nonce },
  included: { t: "included", nonce, hash: hash(1), fulfilment, cost },
  missed: { t: "missed", nonce },
  reverted: { t: "reverted", nonce, hash: hash(1) },
  displaced: { t: "displaced", nonce },
  fulfilled: { t: "fulfilled", fulfilment },
  hardened: { t: "hardened", confirmation: "safe" },
  dislodged: { t: "dislodged" },
  failed: { t: "failed" },
};
type Name = keyof typeof events;

function after(...names: Name[]): IntentState {
  let state: IntentState | null = null;
  for (const name of names) {
    const result = step(state, events[name], NOW);
    if (!result.ok) throw new Error(`${name} in ${state?.life.state}`);
    state = result.next;
  }
  if (state === null) throw new Error("no event");
  return state;
}

const toSimulated: Name[] = ["submitted", "verified", "simulated"];
const toSigned: Name[] = [...toSimulated, "signed"];
const toIncluded: Name[] = [...toSigned, "included"];
const toSuperseded: Name[] = ["submitted", "verified", "fulfilled"];

describe("the life of an intent", () => {
  const path: [events: Name[], state: string, next: string | null][] = [
    [["submitted"], "received", "verify"],
    [["submitted", "verified"], "verified", "simulate"],
    [toSimulated, "simulated", null],
    [[...toSimulated, "unfit"], "verified", "simulate"],
    [toSigned, "signed", null],
    [toIncluded, "included", null],
    [[...toIncluded, "hardened"], "included", null],
    [[...toIncluded, "dislodged"], "signed", null],
    [[...toIncluded, "dislodged", "included"], "included", null],
    [["submitted", "refused"], "rejected", null],
    [["submitted", "verified", "refused"], "rejected", null],
    [[...toSimulated, "refused"], "rejected", null],
    [toSuperseded, "superseded", null],
    [[...toSuperseded, "dislodged"], "verified", "simulate"],
    [[...toSigned, "missed"], "verified", "simulate"],
    [[...toSigned, "reverted"], "verified", "simulate"],
    [[...toSigned, "displaced"], "verified", "simulate"],
    [["submitted", "verified", "refused", "submitted"], "received", "verify"],
    [["held"], "held", "release"],
    [["held", "submitted"], "received", "verify"],
    [["held", "refused"], "rejected", null],
    [["held", "refused", "held"], "held", "release"],
  ];
  test.each(path)("%s leads to %s, then %s", (names, state, next) => {
    const reached = after(...names);
    expect(reached.life.state).toBe(state);
    expect(duty(reached)).toBe(next);
    expect(reached.dueAt === null).toBe(next === null);
  });

  test("submitting again what is under way or done changes nothing", () => {
    for (const names of [["submitted"] as const, toSigned, toIncluded]) {
      const state = after(...names);
      expect(step(state, events.submitted, NOW + 1)).toEqual({ ok: true, next: state });
      expect(step(state, events.held, NOW + 1)).toEqual({ ok: true, next: state });
    }
  });

  test("a held voucher is due at its time, and not before", () => {
    expect(after("held").dueAt).toBe(LATER);
  });

  test("the window of a batch runs from the first simulation", () => {
    const again = step(after(...toSimulated), events.simulated, NOW + 9);
    expect(again.ok && again.next.life).toMatchObject({ at: NOW + 9, since: NOW });
  });

  test("who failed in company goes alone from then on, and only its own failures count", () => {
    expect(after(...toSigned, "missed")).toMatchObject({ alone: true, misses: 0 });
    expect(after(...toSimulated, "unfit")).toMatchObject({ alone: true, misses: 0 });
    expect(after(...toSigned, "displaced")).toMatchObject({ alone: false, misses: 0 });
    expect(after(...toSigned, "reverted")).toMatchObject({ alone: true, misses: 1 });
  });

  test("what a reorganisation took back is not refused while what it rests on may still come back", () => {
    let state = after(...toIncluded, "dislodged", "displaced");
    for (let i = 0; i < 10; i++) {
      const result = step(state, events.refused, NOW);
      if (!result.ok) throw new Error("out of order");
      expect(result.next.life.state).toBe("verified");
      state = result.next;
    }
    const last = step(state, events.refused, NOW);
    expect(last.ok && last.next.life.state).toBe("rejected");
  });

  test("news of another nonce is not its own", () => {
    const state = after(...toSigned);
    for (const t of ["included", "missed", "reverted", "displaced"] as const) {
      const event = { ...events[t], nonce: nonce + 1 };
      expect(step(state, event, NOW)).toEqual({ ok: false, code: "out_of_order" });
    }
  });

  test("a failing node is asked again with growing pauses of at most half a minute, and is no verdict", () => {
    let state = after("submitted", "verified");
    let before = 0;
    for (let i = 0; i < 12; i++) {
      const result = step(state, events.failed, NOW);
      if (!result.ok || result.next.dueAt === null) throw new Error("given up");
      expect(result.next.life).toEqual(state.life);
      expect(result.next.dueAt - NOW).toBeGreaterThanOrEqual(before);
      before = result.next.dueAt - NOW;
      state = result.next;
    }
    expect(before).toBe(30_000);
    expect(after("submitted", "failed", "verified").failures).toBe(0);
  });

  test("what was ready and cannot be judged anew waits like the rest, instead of being asked for ever", () => {
    const result = step(after(...toSimulated), events.failed, NOW);
    expect(result).toMatchObject({ ok: true, next: { life: { state: "verified" }, failures: 1 } });
    expect(result.ok && result.next.dueAt).toBeGreaterThan(NOW);
  });

  test("it gives up after the third transaction of its own that landed in vain", () => {
    const again = ["simulated", "signed", "reverted"] as const;
    const state = after("submitted", "verified", ...again, ...again, ...again);
    expect(state.life).toMatchObject({ state: "rejected", code: "reverted" });
  });

  test("what is final stays, whatever a node says of its block", () => {
    for (const names of [toIncluded, toSuperseded]) {
      const final = step(after(...names), { t: "hardened", confirmation: "finalized" }, NOW);
      if (!final.ok) throw new Error("not hardened");
      expect(step(final.next, events.dislodged, NOW).ok).toBe(false);
    }
  });
});

test("whatever happens, a signed transaction is followed to its end and only a reorganisation undoes an end", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...Object.values(events)), { maxLength: 60 }), (sequence) => {
      let state: IntentState | null = null;
      let now = NOW;
      for (const event of sequence) {
        now += 1_000;
        const result = step(state, event, now);
        if (!result.ok) continue;
        const before = state?.life;
        const { life, dueAt } = result.next;
        expect(dueAt === null).toBe(duty(result.next) === null);
        const ended = before?.state === "included" || before?.state === "superseded";
        if (ended && life.state !== before.state) expect(event.t).toBe("dislodged");
        if (before?.state === "signed" && life.state !== "signed")
          expect(["included", "missed", "reverted", "displaced"]).toContain(event.t);
        state = result.next;
      }
    }),
  );
});
