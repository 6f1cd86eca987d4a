import fc from "fast-check";
import { expect, test } from "vitest";
import { DRAWS } from "./challenge.ts";
import type { NodeEvent } from "./event.ts";
import { step } from "./machine.ts";
import { dueAt, entryOf, freeGpus, statusOf } from "./state.ts";
import { connected, frame, from, hello, lease, offer, request, run } from "./testing/scene.ts";
import { ANSWER_MS } from "./verdict.ts";

const challenged: [NodeEvent, number][] = [
  [connected("a"), 1],
  [from("a", hello(0, { challenges: true })), 2],
];
const CHALLENGE = "11111111-1111-4111-8111-111111111111";

test("no order of events takes more GPUs, cores or memory than there are, loses an allocation's alarm, or reuses a seq", () => {
  const n = fc.integer({ min: 1, max: 4 });
  const connection = fc.constantFrom("a", "b");
  const seq = fc.integer({ min: 0, max: 6 });
  const event: fc.Arbitrary<NodeEvent> = fc.oneof(
    connection.map(connected),
    connection.map((id): NodeEvent => from(id, hello(0, { challenges: true }))),
    connection.map((id): NodeEvent => ({ t: "disconnected", connection: id })),
    fc
      .tuple(
        n,
        fc.integer({ min: 1, max: 3 }),
        fc.nat(6),
        fc.nat(20),
        fc.constantFrom("firm" as const, "yieldable" as const),
      )
      .map(
        ([i, gpus, cpu, memory_gb, tier]): NodeEvent => ({
          t: "hold",
          request: request(i, { gpus, cpu, memory_gb, tier, expiresAt: 200 }),
        }),
      ),
    fc
      .tuple(connection, seq, fc.integer({ min: 0, max: 2 }))
      .map(([id, s, gpus]) => from(id, frame(s, 0, { t: "claim", gpus }))),
    fc
      .tuple(connection, seq, seq, n, fc.boolean())
      .map(([id, s, ack, i, yes]) =>
        from(
          id,
          frame(s, ack, yes ? { t: "held", hold: lease(i) } : { t: "declined", hold: lease(i), reason: "" }),
        ),
      ),
    n.map((i): NodeEvent => ({ t: "unanswered", lease: lease(i) })),
    n.map((i): NodeEvent => ({ t: "reserve", lease: lease(i), until: 300 })),
    n.map((i): NodeEvent => ({ t: "open", lease: lease(i), terms: request(i).terms })),
    n.map((i): NodeEvent => ({ t: "release", lease: lease(i) })),
    n.map((i): NodeEvent => ({ t: "dial", lease: lease(i) })),
    fc
      .tuple(fc.constantFrom("rest", "rouse"), n, seq)
      .map(([t, i, turn]): NodeEvent => ({ t, lease: lease(i), turn })),
    fc.constant<NodeEvent>({ t: "tick" }),
    {
      weight: 4,
      arbitrary: fc.constant<NodeEvent>({ t: "challenge", id: CHALLENGE, draws: Array(DRAWS).fill(1) }),
    },
    fc.tuple(connection, seq, fc.boolean()).map(([id, s, isWrong]) =>
      from(
        id,
        frame(s, 0, {
          challenge: CHALLENGE,
          ...(isWrong ? { t: "proof", output: "AAAA" } : { t: "unproven", reason: "busy" }),
        }),
      ),
    ),
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(event, fc.oneof({ weight: 9, arbitrary: fc.nat(40) }, fc.nat(40_000))), {
        maxLength: 60,
      }),
      (events) => {
        let state = run(challenged, { ...run([]).state, challengeAfterMs: 20 }).state;
        let now = 2;
        for (const [each, pause] of events) {
          now += pause;
          const before = state;
          const result = step(state, each, now);
          if (!result.ok) continue;
          state = result.next;
          const sum = (kind: "gpus" | "cpu" | "memory_gb") =>
            [...state.allocations.values()].reduce(
              (total, { phase, resources }) => total + (phase === "resting" ? 0 : resources[kind]),
              0,
            );
          const taken = sum("gpus");
          expect(taken).toBeLessThanOrEqual(offer.gpus.length);
          expect(sum("cpu")).toBeLessThanOrEqual(offer.cpu);
          expect(sum("memory_gb")).toBeLessThanOrEqual(offer.memory_gb);
          const claimed = state.inventory?.claimed ?? 0;
          expect(freeGpus(state)).toBe(Math.max(0, offer.gpus.length - taken - claimed));
          const free = entryOf(state)?.free ?? 0;
          expect(free).toBeGreaterThanOrEqual(freeGpus(state));
          expect(free).toBeLessThanOrEqual(offer.gpus.length - claimed);
          // LSE-11: only what runs in the yieldable tier is ever told to give way.
          for (const { yielding, tier, phase } of state.allocations.values())
            if (yielding) expect([tier, phase]).toEqual(["yieldable", "open"]);
          const due = dueAt(state) ?? Number.POSITIVE_INFINITY;
          for (const { until } of state.allocations.values()) expect(due).toBeLessThanOrEqual(until);
          // CHL-5: a question is of a node without work, and never without an end.
          const { question } = state.challenges;
          if (question !== null) {
            expect(taken + claimed).toBe(0);
            expect(statusOf(state)).not.toBe("offline");
            expect(due).toBeLessThanOrEqual(question.askedAt + ANSWER_MS);
            expect(now).toBeLessThan(question.askedAt + ANSWER_MS);
          }
          // CHL-2: what computed wrong gets nothing that it had not before.
          if (statusOf(before) === "quarantined")
            for (const id of state.allocations.keys()) expect(before.allocations.has(id)).toBe(true);
          const numbered = result.effects.flatMap((e) =>
            e.t === "send" && e.frame.seq > before.sent ? [e.frame.seq] : [],
          );
          expect(new Set(numbered).size).toBe(numbered.length);
          const waiting = state.unacknowledged.map((sent) => sent.seq);
          expect(waiting).toEqual([...new Set(waiting)].sort((a, b) => a - b));
        }
      },
    ),
    { numRuns: 500 },
  );
});
