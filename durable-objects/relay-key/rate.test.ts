import type { Intent } from "@gpux/protocol/intent";
import { account, hasher, intentOf, intents } from "@gpux/protocol/testing/intents";
import { expect, test } from "vitest";
import { claimsOf } from "./outcome.ts";
import { accountOf, NOBODY } from "./rate.ts";

test("each intent counts against whoever's money it is about, and a revocation against nobody's", () => {
  for (const intent of intents)
    expect(accountOf(intent)).toBe(intent.kind === "revoke_meter" ? NOBODY : account(1));
});

test("each intent has claims of its own", () => {
  for (const intent of intents) expect(claimsOf(hasher, intent)).toHaveLength(1);
});

test("what makes the same events does not share a transaction", () => {
  const claims = (kind: Intent["kind"], change: object = {}) => claimsOf(hasher, intentOf(kind, change));
  expect(claims("fund")).toEqual(claims("allocate"));
  expect(claims("release")).toEqual(claims("reclaim_credit"));
  expect(claims("release")).toEqual(claims("release", { validBefore: 5 }));
  expect(claims("deposit")).toEqual(claims("deposit", { amount: "10" }));
  expect(claims("deposit")).not.toEqual(claims("deposit", { spender: account(7) }));
});
