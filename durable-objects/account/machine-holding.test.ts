import fc from "fast-check";
import { expect, test } from "vitest";
import {
  FREE_GPU_S,
  giveBackHold,
  type Holding,
  heldAt,
  holdLimit,
  NOTHING_HELD,
  takeHold,
} from "./holding.ts";

const take = (holding: Holding, gpuS: number, now: number, limit = holdLimit(0n)): Holding => {
  const taken = takeHold(holding, gpuS, limit, now);
  if (!taken.ok) throw new Error("there is no room");
  return taken.next;
};

test("QTE-5 everybody may hold a GPU-hour for nothing, and it comes back within the hour", () => {
  const full = take(NOTHING_HELD, FREE_GPU_S, 1_000);
  expect(takeHold(full, 30, holdLimit(0n), 1_000)).toEqual({ ok: false, retryAfterS: 30 });
  expect(takeHold(full, 30, holdLimit(0n), 31_000)).toMatchObject({ ok: true });
  expect(heldAt(full, 1_000 + 3_600_000)).toBe(0);
});

test("QTE-5 each USDC of credit lets hold one GPU-hour more", () => {
  const full = take(NOTHING_HELD, FREE_GPU_S, 0);
  expect(takeHold(full, 3_600, holdLimit(999_999n), 0)).toMatchObject({ ok: false });
  expect(takeHold(full, 3_600, holdLimit(1_000_000n), 0)).toMatchObject({ ok: true });
});

test("QTE-5 what is more than the limit will never have room, and says so", () => {
  expect(takeHold(NOTHING_HELD, FREE_GPU_S + 1, holdLimit(0n), 0)).toEqual({ ok: false, retryAfterS: null });
});

test("QTE-5 whatever is taken and given back, nobody holds more than the limit and what has come back since", () => {
  const step = fc.tuple(fc.boolean(), fc.nat(4_000), fc.nat(600_000));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let holding = NOTHING_HELD;
      let now = 0;
      for (const [isTaken, gpuS, pause] of steps) {
        now += pause;
        const taken = takeHold(holding, gpuS, holdLimit(0n), now);
        if (!isTaken) holding = giveBackHold(holding, gpuS, now);
        else if (taken.ok) holding = taken.next;
        expect(heldAt(holding, now)).toBeGreaterThanOrEqual(0);
        expect(heldAt(holding, now)).toBeLessThanOrEqual(FREE_GPU_S);
      }
    }),
  );
});
