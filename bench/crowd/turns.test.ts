import { expect, test } from "vitest";
import { inTurns } from "./turns.ts";

test("every item is done once, no more at a time than allowed, and the answers keep the order", async () => {
  let busy = 0;
  let most = 0;
  const answers = await inTurns([5, 1, 4, 2, 3], 2, async (item) => {
    most = Math.max(most, ++busy);
    for (let i = 0; i < item; i += 1) await Promise.resolve();
    busy -= 1;
    return item * 10;
  });
  expect(answers).toEqual([50, 10, 40, 20, 30]);
  expect(most).toBe(2);
});

test("nothing more is begun after the first that fails", async () => {
  const begun: number[] = [];
  const all = inTurns([1, 2, 3, 4], 1, async (item) => {
    begun.push(item);
    if (item === 2) throw new Error("no");
  });
  await expect(all).rejects.toThrow("no");
  expect(begun).toEqual([1, 2]);
});
