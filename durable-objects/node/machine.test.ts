import { CLOSE, type FromNode } from "@gpux/protocol/frames";
import { expect, test } from "vitest";
import { standingOf } from "../presence.ts";
import type { NodeEvent } from "./event.ts";
import { publicationOf, SILENCE_MS } from "./machine.ts";
import { dueAt, statusOf } from "./state.ts";
import {
  connected,
  frame,
  from,
  gpu,
  held,
  hello,
  lease,
  offer,
  online,
  opened,
  request,
  run,
} from "./testing/scene.ts";

test("a node is offline until its hello, and again when its socket goes", () => {
  expect(statusOf(run(online.slice(0, 1)).state)).toBe("offline");
  expect(statusOf(run(online).state)).toBe("online");
  expect(statusOf(run([...online, [{ t: "disconnected", connection: "a" }, 3]]).state)).toBe("offline");
});

test("MKT-6 presence is written when the node comes or goes, and says nothing of time that nobody saw", () => {
  const minute = 60_000;
  const share = (events: [NodeEvent, number][], now: number) => {
    const { state } = run(events);
    const { reliability, observedMs } = standingOf(state.presence, statusOf(state) !== "offline", now);
    return [reliability, observedMs];
  };
  const back = (at: number): [NodeEvent, number][] => [
    [connected("b"), at],
    [from("b", hello()), at],
  ];
  const gone: NodeEvent = { t: "disconnected", connection: "a" };
  const heard: NodeEvent = { t: "heartbeat", at: minute };
  expect(share(online, 2 + minute)).toEqual([10_000, minute]);
  expect(share([...online, [gone, 2 + minute], ...back(2 + 2 * minute)], 2 + 4 * minute)).toEqual([
    7_500,
    4 * minute,
  ]);
  // Silent since its last ping, so away since then.
  expect(share([...online, [heard, 2 * minute], [heard, 4 * minute]], 4 * minute)).toEqual([
    Math.floor(((minute - 2) / (4 * minute - 2)) * 10_000),
    4 * minute - 2,
  ]);
  const lost: NodeEvent = { ...gone, lost: true };
  expect(share([...online, [heard, minute], [lost, 9 * minute], ...back(9 * minute)], 10 * minute)).toEqual([
    10_000,
    2 * minute - 2,
  ]);
  const { state } = run(online);
  expect(run([[{ t: "heartbeat", at: 50 }, 60]], state).state.presence).toBe(state.presence);
});

test("hello is answered by welcome with the leases that are open", () => {
  const again = run([...opened, [connected("b"), 7], [from("b", hello(2)), 8]]);
  expect(again.sent.filter((each) => each.t === "welcome").at(-1)).toMatchObject({
    seq: 0,
    leases: [lease(1)],
  });
});

test("a newer connection replaces the older, whose frames and end no longer count", () => {
  const { state, effects } = run([
    ...online,
    [connected("b"), 3],
    [from("b", hello()), 4],
    [from("a", frame(1, 0, { t: "drain", deadline_s: 0 })), 5],
    [{ t: "disconnected", connection: "a" }, 6],
  ]);
  expect(statusOf(state)).toBe("online");
  expect(effects).toContainEqual({
    t: "close_others",
    connection: "b",
    code: CLOSE.replaced,
    reason: "replaced",
  });
});

test("a frame that comes again is acknowledged and changes nothing", () => {
  const { state } = run(held);
  const again = run([[from("a", frame(1, 1, { t: "held", hold: lease(1) })), 9]], state);
  expect(again.sent).toMatchObject([{ t: "ack", seq: 0, ack: 1 }]);
  expect(again.state.allocations).toBe(state.allocations);
});

test.each<[string, [NodeEvent, number][], FromNode]>([
  ["before hello", online.slice(0, 1), frame(1, 0, { t: "drain", deadline_s: 0 })],
  ["without a seq", online, frame(0, 0, { t: "drain", deadline_s: 0 })],
])("a frame %s closes the socket", (_, events, bad) => {
  const { state, effects } = run([...events, [from("a", bad), 5]]);
  expect(statusOf(state)).toBe("offline");
  expect(effects.at(-1)).toMatchObject({ t: "close", connection: "a", code: CLOSE.badFrame });
});

test("three silent heartbeats end a connection; a beat keeps it", () => {
  const beat = (at: number): NodeEvent => ({ t: "heartbeat", at });
  const kept = run([...online, [beat(SILENCE_MS), SILENCE_MS + 10]]);
  expect(statusOf(kept.state)).toBe("online");
  const silent = run([[beat(SILENCE_MS), 2 * SILENCE_MS + 1]], kept.state);
  expect(statusOf(silent.state)).toBe("offline");
  expect(silent.effects).toMatchObject([{ t: "close", code: 1001 }]);
});

test("what the Books list is published whenever it changes, and only then", () => {
  const { state } = run(online);
  expect(state.publication).toMatchObject({ version: state.version, attempts: 0 });
  const published = run([[{ t: "published", version: state.version, books: ["any/any/0"] }, 3]], state).state;
  expect(published.publication).toBeNull();
  expect(run([[{ t: "heartbeat", at: 9 }, 10]], published).state.publication).toBeNull();
  expect(run([[{ t: "hold", request: request(1) }, 10]], published).state.publication).not.toBeNull();
});

test("an alarm that rings while a publication is under way leaves another behind, lest this life end before it", () => {
  const { state } = run(online);
  const due = dueAt(state) ?? 0;
  expect(state.publication?.retryAt).toBe(due);
  const rung = run([[{ t: "tick" }, due]], state).state;
  expect(dueAt(rung)).toBeGreaterThan(due);
  expect(rung.publication).toMatchObject({ version: state.version, attempts: 0 });
});

test("a publication of an older state leaves the newer one due, and failures back off", () => {
  const { state } = run(held);
  const stale = run([[{ t: "published", version: state.version - 1, books: [] }, 5]], state).state;
  expect(stale.publication).not.toBeNull();
  const retries = Array.from({ length: 8 }, (_, n) => {
    const failed = run(
      Array.from({ length: n + 1 }, () => [{ t: "publish_failed" }, 0]),
      state,
    ).state;
    return failed.publication?.retryAt;
  });
  expect(retries).toEqual([10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000, 120_000]);
});

test("a node with other GPUs leaves the book of its old model", () => {
  const before = run([
    ...online,
    [{ t: "published", version: 1, books: ["any/any/0", "RTX_4090/any/0", "RTX_4090/eu-west/0"] }, 3],
  ]).state;
  const other = { ...offer, gpus: [{ ...gpu, model: "A100" }] };
  const { state } = run([[from("a", frame(1, 0, { t: "offer", offer: other })), 4]], before);
  expect(publicationOf(state, () => 1)).toMatchObject({
    into: ["any/any/0", "A100/any/0", "A100/eu-west/0"],
    outOf: ["RTX_4090/any/0", "RTX_4090/eu-west/0"],
  });
});
