import { setTimeout as wait } from "node:timers/promises";

/** Does `work` for every item, at most `atOnce` at a time; the answers in the items' order. Stops at the first throw. */
export async function inTurns<Item, Answer>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item) => Promise<Answer>,
): Promise<Answer[]> {
  const answers: Answer[] = new Array(items.length);
  const rest = items.entries();
  let failed = false;
  const worker = async () => {
    for (const [i, item] of rest) {
      if (failed) return;
      try {
        answers[i] = await work(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return answers;
}

const PATIENCE_MS = 600_000;
/** Asks every second until it is so. @throws after ten minutes, saying what never came. */
export async function until(isSo: () => Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`it never came to pass that ${what}`);
    await wait(1_000);
  }
}
