import { expect, test } from "vitest";
import { asOf, dueBy, leaseBody, nodeBody, parseToNode } from "./frames.ts";

const drain = dueBy(leaseBody({ t: "drain", deadline_s: 60 }), 100_000);

test.each([
  { what: "all of it at once", now: 40_000, left: 60 },
  { what: "what is left, a second begun counting whole", now: 70_001, left: 30 },
  { what: "nothing once it is over", now: 100_001, left: 0 },
  { what: "never more than at first, whatever was done to the clock", now: -3_600_000, left: 60 },
])("LSE-10 a drain that is sent again says $what", ({ now, left }) => {
  expect(asOf(drain, now)).toEqual({ t: "drain", deadline_s: left });
});

test("LSE-11 so does a yield; the control socket's drain too", () => {
  const yields = dueBy(leaseBody({ t: "yield", notice_s: 30 }), 30_000);
  expect(asOf(yields, 12_500)).toEqual({ t: "yield", notice_s: 18 });
  const stops = dueBy(nodeBody({ t: "drain", deadline_s: 30 }), 30_000);
  expect(asOf(stops, 29_500)).toEqual({ t: "drain", deadline_s: 1 });
});

test("a frame that says nothing of time is sent as it is, and so is one of an older journal", () => {
  const refused = leaseBody({ t: "refused", what: "lease", reason: "until" });
  expect(asOf(refused, 9_000)).toEqual(refused);
  expect(asOf({ t: "drain", deadline_s: 60 }, 9_000)).toEqual({ t: "drain", deadline_s: 60 });
});

test("what is no frame of the control socket is none", () => {
  expect(parseToNode(JSON.stringify({ v: 1, seq: 1, ack: 0, t: "yield", notice_s: 1 }))).toBeNull();
});
