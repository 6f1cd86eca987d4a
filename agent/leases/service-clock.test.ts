import { expect, test } from "vitest";
import { createServiceClock } from "./service-clock.ts";

function clockAt(before = 0) {
  let now = 1_000;
  const clock = createServiceClock(before, () => now);
  return {
    clock,
    pass(ms: number) {
      now += ms;
      return now;
    },
  };
}

test("MTR-9 counts only while the edge says that time counts", () => {
  const { clock, pass } = clockAt();
  pass(500);
  clock.run(true);
  pass(200.6);
  clock.run(true);
  pass(99.6);
  clock.run(false);
  pass(7_000);
  expect(clock.total()).toBe(300);
  clock.run(true);
  pass(1);
  expect(clock.total()).toBe(301);
});

test("MTR-9 a lost link counts until the edge was last heard, and no further until it says so again", () => {
  const { clock, pass } = clockAt(5_000);
  clock.run(true);
  const heard = pass(400);
  pass(50_000);
  clock.cut(heard);
  clock.cut(pass(10));
  expect(clock.total()).toBe(5_400);
});

test("MTR-9 a link on which nothing was heard since time counted takes nothing back", () => {
  const { clock, pass } = clockAt(5_000);
  const heard = pass(0);
  pass(10);
  clock.run(true);
  pass(10);
  clock.cut(heard);
  expect(clock.total()).toBe(5_000);
});
