import { LeaseTerms } from "@gpux/protocol/eip712";
import type { KeptIntentWire } from "@gpux/protocol/kept";
import { quoteAt } from "@gpux/sdk/testing/market";
import { expect, it } from "vitest";
import { UsageError } from "../outcome.ts";
import { papersIn } from "./papers.ts";

const { terms } = quoteAt(1_800_000_000_000);
const wire = LeaseTerms.encode(terms);
const signature = `0x${"11".repeat(64)}` as const;
const exit = { kind: "exit" as const, terms: wire, signature };
const kept: KeptIntentWire = { chain_id: 10, escrow: `0x${"e5".repeat(20)}`, intent: exit };
const place = { chainId: 10, escrow: `0x${"e5".repeat(20)}` };

it.each([
  ["what an agent or the SDK keeps", kept, { place, intent: { kind: "exit", terms }, terms: [terms] }],
  ["a bare intent", exit, { place: null, intent: { kind: "exit" }, terms: [terms] }],
  [
    "a lease as the API shows it",
    { id: "lse_x", terms: wire },
    { place: null, intent: null, terms: [terms] },
  ],
  ["bare terms", wire, { place: null, intent: null, terms: [terms] }],
  [
    "an intent without terms",
    { kind: "withdraw", account: place.escrow, occasion: "x" },
    { intent: { kind: "withdraw" }, terms: [] },
  ],
])("reads %s", (_, document, paper) => {
  expect(papersIn(JSON.stringify(document, null, 2), "a.json")).toMatchObject([paper]);
});

it("reads several, as an array or one a line, and names the one that is wrong", () => {
  const line = JSON.stringify(kept);
  expect(papersIn(`${line}\n\n${line}\n`, "a")).toHaveLength(2);
  expect(papersIn(`[${line},${line}]`, "a")).toHaveLength(2);
  const bad = JSON.stringify({ ...kept, chain_id: "ten" });
  expect(() => papersIn(`${line}\n${bad}`, "a.jsonl")).toThrow(/^a\.jsonl, 2 at \/chain_id: /);
});

it.each([
  ["nothing", "", "is empty"],
  ["what is no JSON", "{", "is not JSON"],
  ["a number", "7", "no JSON object"],
  ["an unknown field, which may be a misspelt one", JSON.stringify({ ...kept, chian: 1 }), "chian"],
  ["a kind that there is not", JSON.stringify({ kind: "sell" }), "/kind"],
  ["a signature that is too short", JSON.stringify({ ...exit, signature: "0x1" }), "/signature"],
])("refuses %s as the caller's to mend", (_, text, says) => {
  const read = () => papersIn(text, "a.json");
  expect(read).toThrow(UsageError);
  expect(read).toThrow(says);
});
