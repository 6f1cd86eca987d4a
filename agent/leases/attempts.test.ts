import { expect, test } from "vitest";
import { jobOf, leaseOf, termsWith } from "../fixtures.ts";
import { Attempts, unheardMs } from "./attempts.ts";

const { id } = leaseOf(termsWith());

test.each([
  { what: "until the edge was heard to know", heard: [{ seq: 5, at: 1_400 }], unheard: 400 },
  {
    what: "until it was first heard",
    heard: [5, 6].map((seq) => ({ seq, at: 1_000 + 100 * seq })),
    unheard: 500,
  },
  { what: "all of it, when only an older frame was", heard: [{ seq: 4, at: 1_400 }], unheard: 3_000 },
  { what: "all of it, when nothing was", heard: [], unheard: 3_000 },
])("MTR-1 the edge may not have counted $what", ({ heard, unheard }) => {
  const attempts = new Attempts();
  const attempt = attempts.begin(jobOf(id, 1), { epoch: 1, n: 1 });
  expect(unheardMs(attempt, 0, 9_000), "one that never began").toBe(0);
  attempt.start = { seq: 5, at: 1_000, heardAt: null };
  for (const { seq, at } of heard) attempts.heard(seq, at);
  expect(unheardMs(attempt, 3_000, 9_000)).toBe(unheard);
});
