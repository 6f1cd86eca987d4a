import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { canonicalJson } from "@gpux/protocol/canonical";
import { digest, escrowDomain } from "@gpux/protocol/eip712";
import { RoutedJobRequest } from "@gpux/protocol/job";
import { type Quote, QuoteRequest } from "@gpux/protocol/lease";
import { keccak256, stringToBytes } from "viem/utils";
import { expect, test } from "vitest";
import { scopeOf } from "../request-scope.ts";
import { type Account, addressOf, CHAIN_ID, newAccount, principalOf } from "../testing/client.ts";
import { unknownLease } from "../testing/functions.ts";
import { offerOf, ScriptedAgent } from "../testing/scripted-agent.ts";
import { AccountStore } from "./store.ts";

const FUNCTION = "ab".repeat(32);

const objectOf = (account: Account) => env.ACCOUNT.getByName(addressOf(account));
const evict = (account: Account) => evictDurableObject(objectOf(account));
const demandOf = (gpu_model: string, change: object = {}) =>
  QuoteRequest.parse({ demand: { gpu_model, ...change } });
const jobOf = (gpu_model: string, change: object = {}) =>
  RoutedJobRequest.parse({ function: FUNCTION, max_price: "1000", demand: { gpu_model }, ...change });

/** A node whose offer stands in its book. */
const listed = (model: string, change: Parameters<typeof offerOf>[1] = {}) =>
  ScriptedAgent.listed(offerOf(model, change));

async function quoted(account: Account, agent: ScriptedAgent, request: QuoteRequest): Promise<Quote> {
  const [answer] = await Promise.all([
    objectOf(account).quote(principalOf(account), request),
    agent.confirm(),
  ]);
  if (!answer.ok) throw new Error(answer.code);
  if (!answer.quote.firm) throw new Error("the quote is not firm");
  return answer.quote;
}

test("a quote names the offer that the agent holds, and its ids are the hashes of its terms and text", async () => {
  const agent = await listed("ACCOUNT_A");
  const account = newAccount();
  const quote = await quoted(account, agent, demandOf("ACCOUNT_A"));
  const domain = escrowDomain({ chainId: CHAIN_ID, escrow: quote.settlement.escrow });
  expect(quote.lease_hash).toBe(digest(domain, "LeaseTerms", quote.terms));
  expect(quote.terms.quote).toBe(keccak256(stringToBytes(canonicalJson(quote.text))));
  expect(quote.terms).toMatchObject({
    payer: addressOf(account),
    consumerSigner: addressOf(account),
    provider: addressOf(agent.account),
    providerSigner: addressOf(agent.account),
    feeBps: 500,
    upfront: 60_000n,
    unattended: 0n,
    ratePerHour: 3_600_000n,
  });
  expect(quote.amount).toBe(900_000n);
  expect(await env.LEASE.getByName(quote.lease_id).view(addressOf(account))).toMatchObject({
    ok: true,
    lease: { status: "quoted" },
  });
});

test("the cheapest node is asked first, and the next one when it declines", async () => {
  const [cheap, dear] = [await listed("ACCOUNT_B", { gpu_hour: "100" }), await listed("ACCOUNT_B")];
  const account = newAccount();
  const asking = objectOf(account).quote(principalOf(account), demandOf("ACCOUNT_B"));
  const { hold } = await cheap.next("hold");
  cheap.tell({ t: "declined", hold, reason: "busy" });
  await dear.confirm();
  expect(await asking).toMatchObject({
    ok: true,
    quote: { terms: { providerSigner: addressOf(dear.account) } },
  });
});

test("QTE-7 without an offer the answer says why, and whether waiting helps", async () => {
  await listed("ACCOUNT_C");
  const account = newAccount();
  const ask = (request: QuoteRequest) => objectOf(account).quote(principalOf(account), request);
  expect(await ask(demandOf("ACCOUNT_C", { max_rate_per_hour: "1" }))).toEqual({
    ok: false,
    code: "price_below_offers",
    wait: { possible: false, blockers: { price: 1 } },
  });
  expect(await ask(demandOf("ACCOUNT_C", { resources: { gpus: 2 } }))).toEqual({
    ok: false,
    code: "no_capacity",
    wait: { possible: false, blockers: { gpus: 1 } },
  });
});

test("QTE-7 taken GPUs come free again, so waiting for them is possible", async () => {
  const agent = await listed("ACCOUNT_D");
  const account = newAccount();
  await quoted(account, agent, demandOf("ACCOUNT_D"));
  await expect
    .poll(() => objectOf(account).quote(principalOf(account), demandOf("ACCOUNT_D")))
    .toEqual({
      ok: false,
      code: "no_capacity",
      wait: { possible: true, blockers: { gpus: 1 } },
    });
});

test("QTE-5 an account holds at most eight quotes at once, asked one after another or together", async () => {
  const agent = await listed("ACCOUNT_E", { gpus: 16 });
  const account = newAccount();
  for (let n = 0; n < 7; n += 1) await quoted(account, agent, demandOf("ACCOUNT_E"));
  await evict(account);
  const both = [1, 2].map(() => objectOf(account).quote(principalOf(account), demandOf("ACCOUNT_E")));
  await agent.confirm();
  const answers = await Promise.all(both);
  expect(answers.map((answer) => (answer.ok ? "quote" : answer.code)).sort()).toEqual([
    "quote",
    "too_many_quotes",
  ]);
});

test("a nonce is good once, also across an eviction", async () => {
  const account = newAccount();
  const by = principalOf(account, "nonce-of-this-test");
  expect(await objectOf(account).quote(by, demandOf("NOBODY_HAS_IT"))).toMatchObject({ code: "no_capacity" });
  await evict(account);
  expect(await objectOf(account).quote(by, demandOf("NOBODY_HAS_IT"))).toEqual({
    ok: false,
    code: "signature_replayed",
  });
});

test("a job without a lease brings the quote that would pay for it, and leaves the key free", async () => {
  const agent = await listed("ACCOUNT_F", { gpus: 2 });
  const account = newAccount();
  const submit = (hash: string) =>
    objectOf(account).submit(
      principalOf(account),
      "key-1",
      hash,
      jobOf("ACCOUNT_F", { max_price: "5000000" }),
      null,
    );
  const [first] = await Promise.all([submit("aa".repeat(32)), agent.confirm()]);
  expect(first).toMatchObject({ ok: false, code: "payment_required", quote: { amount: 5_000_000n } });
  await evict(account);
  const [second] = await Promise.all([submit("bb".repeat(32)), agent.confirm()]);
  expect(second).toMatchObject({ ok: false, code: "payment_required" });
});

test("the same key is refused with another body, and while its first request runs", async () => {
  const agent = await listed("ACCOUNT_G");
  const account = newAccount();
  const submit = (hash: string) =>
    objectOf(account).submit(principalOf(account), "key-1", hash, jobOf("ACCOUNT_G"), null);
  const first = submit("aa".repeat(32));
  const { hold } = await agent.next("hold");
  expect(await submit("aa".repeat(32))).toEqual({ ok: false, code: "idempotency_in_progress" });
  expect(await submit("bb".repeat(32))).toEqual({ ok: false, code: "idempotency_key_reused" });
  agent.tell({ t: "held", hold });
  expect(await first).toMatchObject({ code: "payment_required" });
});

test("a request that a crash cut off is taken over by its retry at once", async () => {
  const agent = await listed("ACCOUNT_H", { gpus: 2 });
  const account = newAccount();
  const bodyHash = "aa".repeat(32);
  // What a life leaves behind that ended between the request and its answer.
  await runInDurableObject(objectOf(account), (_, ctx) =>
    new AccountStore(ctx.storage.sql).saveKey(scopeOf(null, "key-1", ""), {
      bodyHash,
      state: "pending",
      chosen: null,
      since: Date.now(),
    }),
  );
  const retry = objectOf(account).submit(principalOf(account), "key-1", bodyHash, jobOf("ACCOUNT_H"), null);
  const [retried] = await Promise.all([retry, agent.confirm()]);
  expect(retried).toMatchObject({ code: "payment_required" });
});

test("a job for a lease that nobody has is refused, and its client-made id stands for nothing", async () => {
  const account = newAccount();
  const job = { ...jobOf("NOBODY_HAS_IT"), lease: unknownLease() };
  const answer = await objectOf(account).submit(
    principalOf(account),
    null,
    "aa".repeat(32),
    job,
    "my-own-job-id",
  );
  expect(answer).toMatchObject({ ok: false, code: "lease_unknown" });
  expect(await objectOf(account).resolve("my-own-job-id")).toBeNull();
});

test("QTE-1 only a lease that this account was quoted can be funded by it", async () => {
  const agent = await listed("ACCOUNT_H");
  const quote = await quoted(newAccount(), agent, demandOf("ACCOUNT_H"));
  const stranger = newAccount();
  const funding = {
    amount: quote.amount,
    salt: `0x${"01".repeat(32)}`,
    valid_after: 0,
    valid_before: Math.floor(Date.now() / 1000) + 600,
    signature: "0x00",
  } as const;
  expect(await objectOf(stranger).openLease(principalOf(stranger), quote.lease_id, funding)).toEqual({
    ok: false,
    code: "quote_unknown",
  });
  expect(await objectOf(stranger).leases()).toEqual([]);
});

test("QTE-2 a price asked for alone holds nothing, costs nothing and says so", async () => {
  const agent = await listed("ACCOUNT_I");
  const account = newAccount();
  const request = QuoteRequest.parse({ demand: { gpu_model: "ACCOUNT_I" }, firm: false });
  expect(await objectOf(account).quote(principalOf(account), request)).toMatchObject({
    ok: true,
    quote: {
      object: "indicative_quote",
      firm: false,
      node: addressOf(agent.account),
      rate_per_hour: 3_600_000n,
    },
  });
  const described = await env.NODE.getByName(addressOf(agent.account)).describe();
  expect(described).toMatchObject({ ok: true, entry: { free: 1 } });
});

test("QTE-1 a dedicated quote is owed by the clock alone and suggests the whole of it", async () => {
  const agent = await listed("ACCOUNT_J");
  const quote = await quoted(
    newAccount(),
    agent,
    QuoteRequest.parse({ demand: { gpu_model: "ACCOUNT_J" }, duration_s: 7_200, mode: "dedicated" }),
  );
  // At 1,000 base units a second its time is counted about every 50 s.
  expect(quote).toMatchObject({ text: { mode: "dedicated", tick_s: 50 }, amount: 7_200_000n });
  expect(quote.terms.unattended).toBe(2n ** 88n - 1n);
});

test("MTR-12 a start is quoted, due upfront and put in beside the time; a job that could not pay it is not quoted there", async () => {
  const agent = await listed("ACCOUNT_N", { gpus: 2, start_price: "50000" });
  const account = newAccount();
  const quote = await quoted(account, agent, demandOf("ACCOUNT_N"));
  expect(quote.text).toMatchObject({ start_price: "50000", prices: { gpu_hour: "3600000" } });
  expect(quote.terms).toMatchObject({ ratePerHour: 3_600_000n, upfront: 110_000n });
  expect(quote.amount).toBe(950_000n);
  const price = QuoteRequest.parse({ demand: { gpu_model: "ACCOUNT_N" }, firm: false });
  expect(await objectOf(account).quote(principalOf(account), price)).toMatchObject({
    quote: { rate_per_hour: 3_600_000n, start_price: 50_000n, amount: 950_000n },
  });
  const submit = (max_price: string) =>
    objectOf(account).submit(
      principalOf(account),
      null,
      "aa".repeat(32),
      jobOf("ACCOUNT_N", { max_price }),
      null,
    );
  expect(await submit("50000")).toMatchObject({
    ok: false,
    code: "no_capacity",
    wait: { blockers: { price: 1 } },
  });
  const [paid] = await Promise.all([submit("50001"), agent.confirm()]);
  expect(paid).toMatchObject({
    ok: false,
    code: "payment_required",
    quote: { text: { start_price: "50000" } },
  });
});

test("QTE-3 a node whose price rose since it was listed is asked last, at its new price or not at all", async () => {
  const [risen, other] = [await listed("ACCOUNT_K", { gpu_hour: "100" }), await listed("ACCOUNT_K")];
  const account = newAccount();
  const book = env.BOOK.getByName("ACCOUNT_K/any/0");
  const old = await book.get(addressOf(risen.account));
  risen.tell({ t: "offer", offer: offerOf("ACCOUNT_K", { gpu_hour: "4000000" }) });
  await expect
    .poll(() => book.get(addressOf(risen.account)))
    .toMatchObject({ offer: { prices: { gpu_hour: 4_000_000n } } });
  // A Book that has not heard of it yet.
  if (old !== null) await book.put({ ...old, lastSeen: Date.now() + 1_000 });
  const cheapest = await quoted(account, other, demandOf("ACCOUNT_K"));
  expect(cheapest.terms).toMatchObject({ providerSigner: addressOf(other.account), ratePerHour: 3_600_000n });
  const limited = demandOf("ACCOUNT_K", { max_rate_per_hour: "3600000" });
  expect(await objectOf(account).quote(principalOf(account), limited)).toMatchObject({ code: "no_capacity" });
  const last = await quoted(account, risen, demandOf("ACCOUNT_K"));
  expect(last.terms.ratePerHour).toBe(4_000_000n);
});

test("QTE-1 two callers race for the last GPU: one gets it, and the other is told that waiting helps", async () => {
  const agent = await listed("ACCOUNT_L");
  const ask = () => {
    const account = newAccount();
    return objectOf(account).quote(principalOf(account), demandOf("ACCOUNT_L"));
  };
  const asking = Promise.all([ask(), ask()]);
  await agent.confirm();
  const answers = await asking;
  expect(answers.filter((answer) => answer.ok)).toHaveLength(1);
  expect(answers.find((answer) => !answer.ok)).toMatchObject({
    code: "no_capacity",
    wait: { possible: true, blockers: { gpus: 1 } },
  });
});

test("QTE-1 an agent that lists what it then declines costs no hold, and the next node is asked", async () => {
  const liar = await listed("ACCOUNT_M", { gpu_hour: "100", gpus: 8 });
  const account = newAccount();
  const asking = objectOf(account).quote(principalOf(account), demandOf("ACCOUNT_M"));
  const { hold } = await liar.next("hold");
  liar.tell({ t: "declined", hold, reason: "no_capacity: it never had it" });
  expect(await asking).toMatchObject({ code: "no_capacity", wait: { blockers: { gpus: 1 } } });
  const described = await env.NODE.getByName(addressOf(liar.account)).describe();
  expect(described).toMatchObject({ ok: true, entry: { free: 8 } });
});
