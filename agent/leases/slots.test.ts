import { describe, expect, test } from "vitest";
import { createSlots } from "./slots.ts";

const forever = new AbortController().signal;
const turn = (priority: number, n: number) => ({ priority, n });

describe("slots", () => {
  test("JOB-12 are taken by priority and then by age, so many at once, whenever they were asked for", async () => {
    const slots = createSlots(1);
    const order: number[] = [];
    const first = await slots.take(forever, turn(0, 1));
    const others = [turn(0, 3), turn(0, 2), turn(5, 4), turn(5, 5)].map(async (each) => {
      const giveBack = await slots.take(forever, each);
      order.push(each.n);
      giveBack();
    });
    await Promise.resolve();
    expect(order).toEqual([]);
    first();
    await Promise.all(others);
    expect(order).toEqual([4, 5, 2, 3]);
  });

  test("are taken in order of asking where nothing was said of turns", async () => {
    const slots = createSlots(2);
    const order: string[] = [];
    const held = await Promise.all([slots.take(forever), slots.take(forever)]);
    const others = ["a", "b"].map(async (name) => {
      const giveBack = await slots.take(forever);
      order.push(name);
      giveBack();
    });
    held[0]();
    // Given back once, however often it is said.
    held[0]();
    await Promise.all(others);
    expect(order).toEqual(["a", "b"]);
  });

  test("leave the line at once when they are called off, and make nobody else wait", async () => {
    const slots = createSlots(1);
    const giveBack = await slots.take(forever);
    const off = new AbortController();
    const canceled = slots.take(off.signal, turn(9, 1));
    const next = slots.take(forever, turn(0, 2));
    off.abort(new Error("canceled"));
    await expect(canceled).rejects.toThrow("canceled");
    giveBack();
    await next;
  });
});
