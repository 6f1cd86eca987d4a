import type { ToNode } from "@gpux/protocol/frames";
import { expect, test } from "vitest";
import type { NodeEvent } from "./event.ts";
import { entryOf, freeGpus } from "./state.ts";
import {
  connected,
  frame,
  from,
  hello,
  kinds,
  lease,
  online,
  opened,
  request,
  run,
} from "./testing/scene.ts";

const turned = (t: "rest" | "rouse", turn: number, at: number): [NodeEvent, number] => [
  { t, lease: lease(1), turn },
  at,
];

test("LSE-9 a lease that rests leaves its GPUs to others and is told to hang up, once", () => {
  const { state, sent } = run([...opened, turned("rest", 1, 7), turned("rest", 1, 8)]);
  expect(freeGpus(state)).toBe(2);
  expect(sent.at(-1)).toMatchObject({ t: "rest", lease: lease(1) });
  expect(kinds(sent).filter((t) => t === "rest")).toHaveLength(1);
  const again = run([...opened, turned("rest", 1, 7), [connected("b"), 8], [from("b", hello(3)), 9]]);
  expect(again.sent.filter((each) => each.t === "welcome").at(-1)).toMatchObject({ leases: [lease(1)] });
});

test("LSE-9 a roused lease has its GPUs again and its agent dials, unless others have them or the node is not there", () => {
  const rested = run([...opened, turned("rest", 1, 7)]).state;
  const roused = run([turned("rouse", 2, 8)], rested);
  expect(roused.sent).toMatchObject([{ t: "open", lease: lease(1) }]);
  expect(freeGpus(roused.state)).toBe(1);

  const both: [NodeEvent, number] = [{ t: "hold", request: request(2, { gpus: 2 }) }, 8];
  expect(run([both, turned("rouse", 2, 9)], rested).refusals).toEqual(["no_capacity"]);
  const freed: [NodeEvent, number] = [{ t: "release", lease: lease(2) }, 9];
  expect(run([both, turned("rouse", 2, 9), freed, turned("rouse", 2, 10)], rested).refusals).toEqual([
    "no_capacity",
  ]);
  expect(run([[{ t: "disconnected", connection: "a" }, 8], turned("rouse", 2, 9)], rested).refusals).toEqual([
    "node_offline",
  ]);
  const drains: [NodeEvent, number] = [from("a", frame(2, 2, { t: "drain", deadline_s: 0 })), 8];
  expect(run([drains, turned("rouse", 2, 9)], rested).refusals).toEqual(["node_draining"]);
});

test("LSE-9 counts processor and memory of a roused lease too, not its GPUs alone", () => {
  const big = request(1);
  const resources = { gpus: 1, cpu: 6, memory_gb: 8 };
  const wide = (n: number) => ({ ...request(n), text: { ...big.text, resources } });
  const { refusals } = run([
    ...online,
    [{ t: "hold", request: wide(1) }, 3],
    [from("a", frame(1, 1, { t: "held", hold: lease(1) })), 4],
    [{ t: "open", lease: lease(1), terms: big.terms }, 5],
    turned("rest", 1, 6),
    [{ t: "hold", request: wide(2) }, 7],
    turned("rouse", 2, 8),
  ]);
  expect(refusals).toEqual(["no_capacity"]);
});

test("LSE-9 a question that comes after a newer one changes nothing", () => {
  const { state, sent } = run([...opened, turned("rouse", 2, 7), turned("rest", 1, 8)]);
  expect(freeGpus(state)).toBe(1);
  expect(kinds(sent)).not.toContain("rest");
  const late = run([...opened, turned("rest", 1, 7), turned("rest", 3, 8), turned("rouse", 2, 9)]);
  expect(freeGpus(late.state)).toBe(2);
});

test("LSE-9 the agent of a resting lease is told once to dial, and its GPUs stay free", () => {
  const dial: NodeEvent = { t: "dial", lease: lease(1) };
  const { state, sent } = run([...opened, turned("rest", 1, 7), [dial, 8], [dial, 9]]);
  expect(kinds(sent).filter((t) => t === "dial")).toHaveLength(1);
  expect(freeGpus(state)).toBe(2);
  expect(kinds(run([...opened, [dial, 7]]).sent)).not.toContain("dial");
});

/** Both GPUs in yieldable leases, 1 before 2. */
const yieldables: [NodeEvent, number][] = [
  ...online,
  ...[1, 2].flatMap((n): [NodeEvent, number][] => [
    [{ t: "hold", request: request(n, { tier: "yieldable" }) }, 3],
    [from("a", frame(n, 2 * n - 1, { t: "held", hold: lease(n) })), 4],
    [{ t: "open", lease: lease(n), terms: request(n).terms }, 5],
  ]),
];
const yieldsOf = (frames: readonly ToNode[]) =>
  frames.flatMap((each) => (each.t === "yield" ? [each.lease] : []));

test("LSE-11 a firm demand has the newest yieldable lease give way, is told when, and then has the first word", () => {
  const hold: NodeEvent = { t: "hold", request: request(3, { expiresAt: 900_000 }) };
  const first = run([...yieldables, [hold, 10], [hold, 11]]);
  expect(yieldsOf(first.sent)).toEqual([lease(2)]);
  expect(first.effects).toContainEqual({
    t: "answer",
    lease: lease(3),
    outcome: { ok: false, code: "no_capacity", detail: "of the node's gpus, enough come free in 30 s" },
  });
  expect(entryOf(first.state)?.free).toBe(2);
  const left = run(
    [
      [{ t: "rest", lease: lease(2), turn: 1 }, 30_000],
      [{ t: "rouse", lease: lease(2), turn: 2 }, 30_001],
      [hold, 31_000],
      [{ t: "release", lease: lease(3) }, 40_000],
      [{ t: "rouse", lease: lease(2), turn: 2 }, 90_010],
    ],
    first.state,
  );
  expect(left.refusals).toEqual(["no_capacity"]);
  expect(left.sent).toContainEqual(expect.objectContaining({ t: "hold", hold: lease(3) }));
  expect(left.state.allocations.get(lease(2))?.phase).toBe("open");
});

test("LSE-11 nobody gives way for a demand that would not fit even then, nor for a yieldable one", () => {
  const tooMany: NodeEvent = { t: "hold", request: request(3, { gpus: 3 }) };
  const cheap: NodeEvent = { t: "hold", request: request(3, { tier: "yieldable" }) };
  for (const hold of [tooMany, cheap]) {
    const { sent, refusals } = run([...yieldables, [hold, 10]]);
    expect(yieldsOf(sent)).toEqual([]);
    expect(refusals).toEqual(["no_capacity"]);
  }
});

test("LSE-11 a yieldable lease whose GPUs were claimed while it was held gives way as it is opened", () => {
  const tiers = (tier: "firm" | "yieldable"): [NodeEvent, number][] => [
    ...online,
    [{ t: "hold", request: request(1, { tier }) }, 3],
    [from("a", frame(1, 1, { t: "held", hold: lease(1) })), 4],
    [from("a", frame(2, 1, { t: "claim", gpus: 2 })), 5],
    [{ t: "open", lease: lease(1), terms: request(1).terms }, 6],
  ];
  expect(kinds(run(tiers("yieldable")).sent).slice(-2)).toEqual(["open", "yield"]);
  expect(yieldsOf(run(tiers("firm")).sent)).toEqual([]);
});

test("LSE-11 the owner's claim takes free GPUs first, then yieldable leases, never a firm one", () => {
  const claims = (seq: number, gpus: number): NodeEvent => from("a", frame(seq, 4, { t: "claim", gpus }));
  expect(yieldsOf(run([...opened, [claims(2, 1), 7]]).sent)).toEqual([]);
  const { state, sent } = run([...yieldables, [claims(3, 1), 7], [claims(4, 2), 8]]);
  expect(yieldsOf(sent)).toEqual([lease(2), lease(1)]);
  expect(entryOf(state)?.free).toBe(0);
  const { refusals } = run(
    [
      [{ t: "rest", lease: lease(1), turn: 1 }, 9],
      [{ t: "rouse", lease: lease(1), turn: 2 }, 10],
      [claims(5, 0), 11],
      [{ t: "rouse", lease: lease(1), turn: 2 }, 12],
    ],
    state,
  );
  expect(refusals).toEqual(["no_capacity"]);
  expect(
    run(
      [
        [connected("b"), 20],
        [from("b", hello(9, { claimed: 2 })), 21],
      ],
      run(online).state,
    ).state,
  ).toMatchObject({
    inventory: { claimed: 2 },
  });
});
