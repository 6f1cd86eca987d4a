import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { duty, type IntentEvent, type IntentState, RESEND_MS, SIMULATION_FRESH_MS, step } from "./machine.ts";

const NOW = 1_800_000_000_000;
const hash = (n: number) => `0x${n.toString(16).padStart(64, "0")}` as const;
const transactionOf = (nonce: number) => ({
  hash: hash(nonce + 1),
  raw: "0x02" as const,
  nonce,
  calldataBytes: 4,
  maxCost: "1",
});
const fulfilment = {
  blockNumber: 7,
  blockTimestamp: 1_800_000_000,
  result: {
    kind: "withdraw" as const,
    account: "0x00000000000000000000000000000000000000a1" as const,
    amount: "5",
  },
};
const cost = { gasUsed: "1", effectiveGasPrice: "1", l1Fee: "1", calldataBytes: 4 };

const events: Record<IntentEvent["t"], IntentEvent> = {
  submitted: { t: "submitted" },
  verified: { t: "verified" },
  refused: { t: "refused", code: "stale", detail: "" },
  simulated: { t: "simulated" },
  signed: { t: "signed", transaction: transactionOf(3) },
  sent: { t: "sent" },
  unseen: { t: "unseen" },
  included: { t: "included", fulfilment, cost },
  reverted: { t: "reverted" },
  displaced: { t: "displaced" },
  fulfilled: { t: "fulfilled", fulfilment },
  failed: { t: "failed" },
};

function after(...names: IntentEvent["t"][]): IntentState {
  let state: IntentState | null = null;
  for (const name of names) {
    const result = step(state, events[name], NOW);
    if (!result.ok) throw new Error(`${name} in ${state?.life.state}`);
    state = result.next;
  }
  if (state === null) throw new Error("no event");
  return state;
}

const toSimulated = ["submitted", "verified", "simulated"] as const;
const toBroadcast = [...toSimulated, "signed", "sent"] as const;

describe("the life of an intent", () => {
  const path: [events: readonly IntentEvent["t"][], state: string, next: string | null][] = [
    [["submitted"], "received", "verify"],
    [["submitted", "verified"], "verified", "simulate"],
    [toSimulated, "simulated", "sign"],
    [[...toSimulated, "signed"], "signed", "send"],
    [toBroadcast, "broadcast", "watch"],
    [[...toBroadcast, "unseen"], "broadcast", "watch"],
    [[...toBroadcast, "included"], "included", null],
    [[...toSimulated, "signed", "included"], "included", null],
    [["submitted", "refused"], "rejected", null],
    [["submitted", "verified", "refused"], "rejected", null],
    [["submitted", "verified", "fulfilled"], "superseded", null],
    [[...toBroadcast, "reverted"], "verified", "simulate"],
    [[...toBroadcast, "displaced"], "verified", "simulate"],
    [["submitted", "verified", "refused", "submitted"], "received", "verify"],
  ];
  test.each(path)("%s leads to %s, then %s", (names, state, next) => {
    const reached = after(...names);
    expect(reached.life.state).toBe(state);
    expect(duty(reached, NOW)).toBe(next);
    expect(reached.dueAt === null).toBe(next === null);
  });

  test("submitting again what is under way or done changes nothing", () => {
    for (const names of [["submitted"], toBroadcast, [...toBroadcast, "included"]] as const) {
      const state = after(...names);
      expect(step(state, events.submitted, NOW + 1)).toEqual({ ok: true, next: state });
    }
  });

  test("an old simulation is made again before anything is signed", () => {
    expect(duty(after(...toSimulated), NOW + SIMULATION_FRESH_MS + 1)).toBe("simulate");
  });

  test("what stays unseen is sent again", () => {
    expect(duty(after(...toBroadcast, "unseen"), NOW + RESEND_MS + 1)).toBe("send");
  });

  test("a failing node is asked again with growing pauses of at most half a minute, and is no verdict", () => {
    let state = after(...toBroadcast);
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

  test("it gives up after the third transaction that landed in vain", () => {
    const again = ["simulated", "signed", "sent", "reverted"] as const;
    const state = after("submitted", "verified", ...again, ...again, ...again);
    expect(state.life).toMatchObject({ state: "rejected", code: "reverted" });
  });
});

test("whatever happens, a signed transaction is followed to its end and ends stay ends", () => {
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
        expect(dueAt === null).toBe(duty(result.next, now) === null);
        if (before?.state === "included" || before?.state === "superseded") expect(life).toEqual(before);
        if (before?.state === "signed" || before?.state === "broadcast") {
          const left = life.state !== "signed" && life.state !== "broadcast";
          if (left) expect(["included", "reverted", "displaced"]).toContain(event.t);
          else expect(life.transaction).toEqual(before.transaction);
        }
        state = result.next;
      }
    }),
  );
});
