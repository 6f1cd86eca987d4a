import { expect, test } from "vitest";
import { initialLink, type LinkEvent, type LinkState, stepLink } from "./machine.ts";

const AGENTS = 2_000;
/** Of one isolate on a busy machine (docs/benchmarks.md, load). */
const CHECK_MS = 1_000 / 24;
const REFUSAL_MS = 1;

interface Due {
  readonly at: number;
  readonly run: () => void;
}

/**
 * All agents at the door of one edge at once, in virtual time. It checks one upgrade after another, given up or not, and
 * turns away who would be one too many. Answers when the last of them is up, in ms.
 */
function comeBack(atOnce: number, random: () => number): number {
  const heap: Due[] = [];
  let now = 0;
  let busyUntil = 0;
  let underway = 0;
  let up = 0;
  const later = (at: number, run: () => void) => {
    let low = 0;
    for (let high = heap.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((heap[middle]?.at ?? 0) > at) low = middle + 1;
      else high = middle;
    }
    heap.splice(low, 0, { at, run });
  };
  const work = (ms: number, done: () => void) => {
    busyUntil = Math.max(busyUntil, now) + ms;
    later(busyUntil, done);
  };
  for (let agent = 0; agent < AGENTS; agent += 1) {
    let state: LinkState = initialLink;
    let dials = 0;
    const apply = (event: LinkEvent): void => {
      const step = stepLink(state, event, now, random());
      state = step.next;
      if (step.effects.includes("dial")) dial();
      const { wakeAt } = step;
      const woken = state;
      if (wakeAt !== null) later(wakeAt, () => state === woken && apply({ type: "tick" }));
    };
    const dial = () => {
      dials += 1;
      const mine = dials;
      const isMine = () => dials === mine && state.state === "dialling";
      if (underway >= atOnce) {
        const refused = { type: "lost", code: 1006, detail: "", status: 503, retryAfterMs: 5_000 } as const;
        return work(REFUSAL_MS, () => isMine() && apply(refused));
      }
      underway += 1;
      work(CHECK_MS, () => {
        underway -= 1;
        if (!isMine()) return;
        apply({ type: "opened" });
        apply({ type: "welcomed", heartbeatMs: 1e9 });
        up += 1;
      });
    };
    apply({ type: "tick" });
  }
  for (let next = heap.pop(); next !== undefined && up < AGENTS; next = heap.pop()) {
    now = next.at;
    next.run();
  }
  return now;
}

/** mulberry32: the same herd each time. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

test.each([1, 2, 3])(
  "LNK-8 2,000 agents that an edge lost in one second come back in a few minutes (%i)",
  (seed) => {
    const least = AGENTS * CHECK_MS;
    expect(comeBack(64, seeded(seed)), "an edge that turns away whom it has no time for").toBeLessThan(
      3 * least,
    );
    expect(comeBack(AGENTS, seeded(seed)), "one that checks them all").toBeLessThan(9 * least);
  },
);
