import { CLOSE } from "@gpux/protocol/frames";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { backoff, STABLE_MS } from "./backoff.ts";
import { initialLink, type LinkEvent, type LinkState, stepLink } from "./machine.ts";

const HALF = 0.5;
const up: LinkState = { state: "up", failures: 3, since: 0, pinged: 0, missed: 0, heartbeatMs: 25_000 };
const lost = (code: number, more: Partial<Extract<LinkEvent, { type: "lost" }>> = {}): LinkEvent => ({
  type: "lost",
  code,
  detail: "gone",
  ...more,
});

describe("back-off", () => {
  test.each([
    { failures: 0, ceiling: 250 },
    { failures: 1, ceiling: 1_000 },
    { failures: 2, ceiling: 2_000 },
    { failures: 6, ceiling: 32_000 },
    { failures: 7, ceiling: 60_000 },
    { failures: 5_000, ceiling: 60_000 },
  ])("after $failures failures it is uniform below $ceiling ms", ({ failures, ceiling }) => {
    expect(backoff(failures, 0)).toBe(0);
    expect(backoff(failures, HALF)).toBe(ceiling / 2);
    expect(backoff(failures, 1 - Number.EPSILON)).toBeLessThan(ceiling);
  });

  test("Retry-After is a floor, and is itself bounded", () => {
    expect(backoff(1, 0, 5_000)).toBe(5_000);
    expect(backoff(1, 0, 1e12)).toBe(60_000);
    expect(backoff(1, HALF, 5_000), "and those that it sent away come back apart").toBe(7_500);
    expect(backoff(6, HALF, 5_000)).toBe(21_000);
  });
});

describe("link", () => {
  test("dials, greets, is up when welcomed", () => {
    const dialled = stepLink(initialLink, { type: "tick" }, 10, HALF);
    expect(dialled).toMatchObject({ next: { state: "dialling" }, effects: ["dial"] });
    const greeted = stepLink(dialled.next, { type: "opened" }, 20, HALF);
    expect(greeted).toMatchObject({ next: { state: "greeting" }, effects: ["hello"] });
    const welcomed = stepLink(greeted.next, { type: "welcomed", heartbeatMs: 25_000 }, 30, HALF);
    expect(welcomed).toMatchObject({ next: { state: "up", since: 30 }, effects: [], wakeAt: 25_030 });
  });

  test("pings each heartbeat, and drops when two stay unanswered", () => {
    const first = stepLink(up, { type: "tick" }, 25_000, HALF);
    expect(first).toMatchObject({ effects: ["ping"], wakeAt: 50_000 });
    const second = stepLink(first.next, { type: "tick" }, 50_000, HALF);
    expect(second.effects).toEqual(["ping"]);
    expect(stepLink(second.next, { type: "tick" }, 75_000, HALF)).toMatchObject({
      next: { state: "waiting" },
      effects: ["drop"],
    });
  });

  test("anything heard answers the pings", () => {
    const pinged = stepLink(
      stepLink(up, { type: "tick" }, 25_000, HALF).next,
      { type: "tick" },
      50_000,
      HALF,
    );
    const heard = stepLink(pinged.next, { type: "heard" }, 60_000, HALF);
    expect(heard.wakeAt).toBe(75_000);
    expect(stepLink(heard.next, { type: "tick" }, 75_000, HALF).effects).toEqual(["ping"]);
  });

  test.each([
    { after: STABLE_MS, why: "a stable link retries at once", wait: 125, failures: 1 },
    { after: STABLE_MS - 1, why: "an unstable one keeps backing off", wait: 2_000, failures: 4 },
  ])("$why", ({ after, wait, failures }) => {
    const { next } = stepLink(up, lost(1006), after, HALF);
    expect(next).toEqual({ state: "waiting", failures, until: after + wait });
  });

  test.each([
    { event: lost(CLOSE.replaced), reason: "replaced" },
    { event: lost(CLOSE.forbidden), reason: "forbidden" },
    { event: lost(CLOSE.badFrame), reason: "bad_frame" },
    { event: lost(CLOSE.gone), reason: "gone" },
    { event: lost(1006, { status: 403 }), reason: "forbidden" },
    { event: lost(1006, { status: 410 }), reason: "gone" },
  ])("ends for good on $event.code $event.status: $reason", ({ event, reason }) => {
    const { next, wakeAt } = stepLink(up, event, 5, HALF);
    expect(next).toMatchObject({ state: "ended", end: { reason } });
    expect(wakeAt).toBeNull();
    expect(stepLink(next, { type: "tick" }, 1e9, HALF).effects).toEqual([]);
  });

  test.each([1000, 1001, 1006, 1011, 1012])("dials again after close %i", (code) => {
    expect(stepLink(up, lost(code), 5, HALF).next.state).toBe("waiting");
  });

  test.each([401, 404, 429, 500, 503])("dials again after HTTP %i", (status) => {
    const dialling: LinkState = { state: "dialling", failures: 0, since: 0 };
    expect(stepLink(dialling, lost(1006, { status }), 5, HALF).next.state).toBe("waiting");
  });

  test.each([
    { failures: 0, limit: 15_000 },
    { failures: 1, limit: 30_000 },
    { failures: 2, limit: 60_000 },
    { failures: 9, limit: 60_000 },
  ])("after $failures failures a dial may take $limit ms", ({ failures, limit }) => {
    const { next, wakeAt } = stepLink({ state: "waiting", failures, until: 0 }, { type: "tick" }, 0, HALF);
    expect(wakeAt).toBe(limit);
    expect(stepLink(next, { type: "tick" }, limit - 1, HALF).effects).toEqual([]);
    expect(stepLink(next, { type: "tick" }, limit, HALF).effects).toEqual(["drop"]);
  });

  const event: fc.Arbitrary<LinkEvent> = fc.oneof(
    fc.constantFrom<LinkEvent>({ type: "tick" }, { type: "opened" }, { type: "heard" }),
    fc.record({
      type: fc.constant("welcomed" as const),
      heartbeatMs: fc.integer({ min: 1_000, max: 60_000 }),
    }),
    fc.constantFrom(1000, 1001, 1006, 1012).map((code) => lost(code)),
  );

  test("whatever happens, it never has two sockets, never forgets to wake, and stops when told", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(event, fc.nat(70_000), fc.double({ min: 0, max: 0.99, noNaN: true }))),
        (story) => {
          let state = initialLink;
          let now = 0;
          let sockets = 0;
          for (const [what, pause, random] of story) {
            now += pause;
            if (what.type === "lost") sockets = 0;
            const step = stepLink(state, what, now, random);
            for (const effect of step.effects) {
              if (effect === "dial") sockets += 1;
              if (effect === "drop") sockets -= 1;
              if (effect === "ping") expect(state.state).toBe("up");
            }
            expect(sockets).toBeLessThanOrEqual(1);
            if (step.next.state === "waiting") expect(sockets).toBe(0);
            expect(step.wakeAt).not.toBeNull();
            state = step.next;
          }
          expect(stepLink(state, { type: "stop" }, now, 0).next.state).toBe("ended");
        },
      ),
    );
  });
});
