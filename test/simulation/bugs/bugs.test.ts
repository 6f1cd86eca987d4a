import { describe, expect, it } from "vitest";
import { PRODUCT } from "../machines.ts";
import { simulate } from "../simulation.ts";
import { BUGS } from "./bugs.ts";

/** Who looks for longer has not found it. */
const WITHIN = 1_000;
const PATIENCE_MS = 30 * 60_000;

/** The first seed whose world breaks a rule; null when none does. */
function seedThatFinds(bug: (typeof BUGS)[number]): number | null {
  const machines = bug.plant(PRODUCT);
  for (let seed = 1; seed <= WITHIN; seed += 1)
    if (simulate(seed, { machines }).violation !== null) return seed;
  return null;
}

describe("the simulation finds", () => {
  it("twenty planted bugs and more", () => {
    expect(BUGS.length).toBeGreaterThanOrEqual(20);
    expect(new Set(BUGS.map(({ name }) => name)).size).toBe(BUGS.length);
  });

  it.each(BUGS)(
    "$name: $about",
    (bug) => {
      expect(seedThatFinds(bug), `${bug.name} was not found within ${WITHIN} seeds`).not.toBeNull();
    },
    PATIENCE_MS,
  );
});
