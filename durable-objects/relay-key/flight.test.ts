import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Attempt,
  type FlightEvent,
  type FlightState,
  flightDuty,
  flightStep,
  GONE_MS,
  newest,
  outbid,
  stalled,
} from "./flight.ts";

const NOW = 1_800_000_000_000;
const GWEI = 1_000_000_000n;
const hash = (n: number) => `0x${n.toString(16).padStart(64, "0")}` as const;
const attempt = (n: number, fee = GWEI, purpose: Attempt["purpose"] = "call"): Attempt => ({
  hash: hash(n),
  raw: "0x02",
  purpose,
  maxFeePerGas: fee.toString(),
  maxPriorityFeePerGas: (fee / 100n).toString(),
  maxCost: "1",
  calldataBytes: 4,
});
const fresh: FlightState = {
  nonce: 3,
  attempts: [attempt(1)],
  sent: null,
  underpriced: false,
  goneSince: null,
  failures: 0,
  outcome: "open",
  dueAt: NOW,
};
const policy = { replaceAfterMs: 6_000, replaceAfterBlocks: 3 };

function after(...events: FlightEvent[]): FlightState {
  return events.reduce((state, event) => {
    const next = flightStep(state, event, NOW);
    if (next === null) throw new Error(`${event.t} in ${state.outcome}`);
    return next;
  }, fresh);
}
const accepted: FlightEvent = { t: "accepted", block: 100 };

describe("a nonce on its way", () => {
  test("is sent, watched, and ends when it lands", () => {
    expect(flightDuty(fresh)).toBe("send");
    expect(flightDuty(after(accepted))).toBe("watch");
    expect(flightDuty(after(accepted, { t: "landed" }))).toBeNull();
  });

  const waits: [ms: number, blocks: number, verdict: string | null][] = [
    [5_999, 50, null],
    [6_000, 2, "resend"],
    [6_000, 3, "outbid"],
    [60_000, 0, "resend"],
  ];
  test.each(waits)("after %i ms and %i blocks: %s", (ms, blocks, verdict) => {
    expect(stalled(after(accepted), { head: 100 + blocks, count: 3 }, NOW + ms, policy)).toBe(verdict);
  });

  test("while a lower nonce has yet to land it is sent again and never outbid", () => {
    expect(stalled(after(accepted), { head: 150, count: 2 }, NOW + 60_000, policy)).toBe("resend");
  });

  test("a node that queues nothing is no failing node, however often it says so", () => {
    const waiting = after(...Array.from({ length: 20 }, (): FlightEvent => ({ t: "early" })));
    expect(flightDuty(waiting)).toBe("send");
    expect(waiting.failures).toBe(0);
    expect(waiting.dueAt).toBeLessThanOrEqual(NOW + 2_000);
  });

  test("what a node has forgotten is sent again at once, unless it has only just been sent", () => {
    const forget = (ms: number) => flightStep(after(accepted), { t: "forgotten" }, NOW + ms);
    expect(forget(999)).toBeNull();
    expect(forget(1_000)).toMatchObject({ sent: null, dueAt: NOW + 1_000 });
    expect(flightStep(fresh, { t: "forgotten" }, NOW + 9_000)).toBeNull();
  });

  test("what a node finds too cheap is outbid at once, and its replacement is sent", () => {
    const cheap = after({ t: "underpriced" });
    expect(stalled(cheap, { head: 0, count: 3 }, NOW, policy)).toBe("outbid");
    const replaced = flightStep(cheap, { t: "replaced", attempt: attempt(2) }, NOW);
    expect(replaced).toMatchObject({ sent: null, underpriced: false });
    expect(replaced?.attempts.map((each) => each.hash)).toEqual([hash(1), hash(2)]);
  });

  test("it is given up only when its nonce has been used by another for a while", () => {
    const gone = after(accepted, { t: "gone" });
    expect(gone.outcome).toBe("open");
    expect(flightStep(gone, { t: "gone" }, NOW + GONE_MS - 1)?.outcome).toBe("open");
    expect(flightStep(gone, { t: "gone" }, NOW + GONE_MS)?.outcome).toBe("displaced");
    expect(flightStep(gone, { t: "unseen" }, NOW)?.goneSince).toBeNull();
    // A reorganisation in between gives the nonce back, and the time before it does not count.
    for (const again of [accepted, { t: "replaced", attempt: attempt(2) } as const])
      expect(flightStep(gone, again, NOW)?.goneSince).toBeNull();
  });

  test("a reorganisation sets it flying again with the same transactions", () => {
    const again = after(accepted, { t: "landed" }, { t: "dislodged" });
    expect(again).toMatchObject({ outcome: "open", sent: null, attempts: fresh.attempts, dueAt: NOW });
  });
});

describe("outbidding", () => {
  const none = { maxFeePerGas: 0n, maxPriorityFeePerGas: 0n };

  test("raises both fees by an eighth, or to the market", () => {
    expect(outbid(attempt(1, 800n), none, GWEI)).toEqual({
      purpose: "call",
      fees: { maxFeePerGas: 901n, maxPriorityFeePerGas: 10n },
    });
    const market = { maxFeePerGas: 5_000n, maxPriorityFeePerGas: 7n };
    expect(outbid(attempt(1, 800n), market, GWEI)?.fees).toEqual({
      maxFeePerGas: 5_000n,
      maxPriorityFeePerGas: 10n,
    });
  });

  test("a call far above a cap that was lowered since is still cancelled", () => {
    expect(outbid(attempt(1, 3_555_555_556n), none, GWEI)?.purpose).toBe("cancel");
  });

  test("always climbs enough for nodes, cancels at the cap, and stops in the end", () => {
    fc.assert(
      fc.property(fc.bigInt(1n, 100n * GWEI), fc.bigInt(GWEI, 50n * GWEI), (fee, cap) => {
        let last = attempt(1, fee);
        for (let n = 2; n < 300; n++) {
          const next = outbid(last, none, cap);
          if (next === null) {
            expect(last.purpose).toBe("cancel");
            return;
          }
          for (const field of ["maxFeePerGas", "maxPriorityFeePerGas"] as const)
            expect(next.fees[field] * 10n).toBeGreaterThan(BigInt(last[field]) * 11n);
          if (next.purpose === "call") expect(next.fees.maxFeePerGas).toBeLessThanOrEqual(cap);
          if (last.purpose === "cancel") expect(next.purpose).toBe("cancel");
          last = {
            ...attempt(n, 0n, next.purpose),
            maxFeePerGas: next.fees.maxFeePerGas.toString(),
            maxPriorityFeePerGas: next.fees.maxPriorityFeePerGas.toString(),
          };
        }
        throw new Error("it climbs for ever");
      }),
    );
  });
});

test("no attempt is ever forgotten, and what is open always has something due", () => {
  const event: fc.Arbitrary<FlightEvent> = fc.oneof(
    fc.constantFrom<FlightEvent>(
      accepted,
      { t: "underpriced" },
      { t: "early" },
      { t: "forgotten" },
      { t: "unseen" },
      { t: "gone" },
      { t: "landed" },
      { t: "dislodged" },
      { t: "failed" },
    ),
    fc.integer({ min: 2, max: 9 }).map((n): FlightEvent => ({ t: "replaced", attempt: attempt(n) })),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), (sequence) => {
      let state = fresh;
      let now = NOW;
      for (const each of sequence) {
        now += 1_000;
        const next = flightStep(state, each, now);
        if (next === null) continue;
        expect(next.attempts.slice(0, state.attempts.length)).toEqual(state.attempts);
        expect(next.dueAt === null).toBe(next.outcome !== "open");
        expect(flightDuty(next) === null).toBe(next.outcome !== "open");
        if (each.t === "replaced") expect(newest(next)).toEqual(each.attempt);
        state = next;
      }
    }),
  );
});
