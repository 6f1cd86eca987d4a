import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { configOf } from "@gpux/durable-objects/config";
import type { Principal } from "@gpux/durable-objects/interfaces";
import {
  type Account,
  addressOf,
  call,
  newAccount,
  principalOf,
  type Sent,
} from "@gpux/durable-objects/testing/client";
import { ECHO } from "@gpux/durable-objects/testing/echo";
import { store } from "@gpux/durable-objects/testing/functions";
import { offerOf, ScriptedAgent } from "@gpux/durable-objects/testing/scripted-agent";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { AllowanceNeeded } from "@gpux/protocol/answers";
import { CreditOffer } from "@gpux/protocol/credit";
import { JobView } from "@gpux/protocol/job";
import { Quote } from "@gpux/protocol/lease";
import { Demand } from "@gpux/protocol/resources";
import { SessionId } from "@gpux/protocol/session";
import { encodeFunctionResult } from "viem/utils";
import { afterEach, expect, test, vi } from "vitest";
import { leaseToken, routedLease } from "./lease-token.ts";

afterEach(() => vi.restoreAllMocks());

/** What the escrow says of every credit: the chain of these tests has none. */
function creditIs(amount: bigint, releaseAt = 0): void {
  const result = encodeFunctionResult({
    abi: leaseEscrowAbi,
    functionName: "credits",
    result: [amount, releaseAt],
  });
  vi.spyOn(globalThis, "fetch").mockImplementation(async () =>
    Response.json({ jsonrpc: "2.0", id: 1, result }),
  );
}

async function listed(model: string): Promise<ScriptedAgent> {
  const agent = await ScriptedAgent.join(offerOf(model, { gpus: 2 }));
  const book = env.BOOK.getByName(`${model}/any/0`);
  await expect.poll(() => book.get(addressOf(agent.account))).toMatchObject({ status: "online" });
  return agent;
}

/** Requests of an account that its object has seen: it keeps the nonce of each. */
const seenBy = (account: Account) =>
  runInDurableObject(
    env.ACCOUNT.getByName(addressOf(account)),
    (_, { storage }) => storage.sql.exec<{ n: number }>("SELECT count(*) AS n FROM nonces").one().n,
  );

async function send(account: Account, sent: Sent) {
  const response = await call(account, "/v1/jobs", sent);
  const body: Record<string, unknown> = await response.json();
  return { status: response.status, body, token: response.headers.get("gpux-lease") };
}

async function jobOf(account: Account, gpu_model: string) {
  const inputs = { value: { number: 1 } };
  return { function: await store(account, ECHO), inputs, max_price: "1000", demand: { gpu_model } };
}

const hasher = () => configOf(env).hasher;

/** The two signatures that a `payment_required` asks for where credit suffices. */
async function payment(account: Account, body: Record<string, unknown>) {
  const { lease_id: lease } = Quote.parse(body.quote);
  const { message } = CreditOffer.parse(body.credit).allocate;
  const { lease_hash: leaseId, cumulative } = AllowanceNeeded.parse(body.allowance);
  return {
    lease,
    funding: {
      kind: "credit",
      funded_to: message.fundedTo.join(),
      valid_before: message.validBefore,
      signature: await account.sign({ hash: hasher().allocate(message) }),
    },
    allowance: {
      cumulative: cumulative.toString(),
      signature: await account.sign({ hash: hasher().allowance({ leaseId, cumulative }) }),
    },
  };
}

test("CRD-5 POOL-2 two requests pay for a job from credit, and the third is led to its lease in one hop", async () => {
  creditIs(5_000_000n);
  const agent = await listed("POOL_A");
  const account = newAccount();
  const job = await jobOf(account, "POOL_A");
  const headers = { "idempotency-key": "first-of-pool" };
  const [asked] = await Promise.all([send(account, { json: job, headers }), agent.confirm()]);
  expect(asked).toMatchObject({ status: 402, body: { code: "payment_required" }, token: null });
  const paid = await payment(account, asked.body);
  const taken = await send(account, { json: { ...job, ...paid }, headers });
  expect(taken).toMatchObject({ status: 202, body: { lease_id: paid.lease }, token: expect.any(String) });
  const view = await env.LEASE.getByName(JobView.parse(taken.body).lease_id).view(addressOf(account));
  expect(view).toMatchObject({ lease: { status: "funding", from_credit: true } });

  // Under the same key it is the same job, however it comes.
  const again = await send(account, { json: { ...job, ...paid }, headers });
  expect(again).toMatchObject({ status: 200, body: { id: taken.body.id } });

  const before = await seenBy(account);
  const led = { "gpux-lease": taken.token ?? "", "idempotency-key": "second-of-pool" };
  const { allowance } = paid;
  const next = await send(account, { json: { ...job, max_price: "0", allowance }, headers: led });
  expect(next).toMatchObject({ status: 202, body: { lease_id: paid.lease }, token: taken.token });
  expect(await seenBy(account)).toBe(before);
  const reused = { ...job, max_price: "0", inputs: { value: { number: 2 } } };
  expect((await send(account, { json: reused, headers: led })).body).toMatchObject({
    code: "idempotency_key_reused",
  });
  expect(await seenBy(account)).toBe(before);

  // For another demand the token is as good as none, and the account looks for one that fits.
  const other = { ...job, max_price: "0", allowance, demand: { gpu_model: "POOL_A", region: "eu-west" } };
  expect(await send(account, { json: other, headers: { "gpux-lease": taken.token ?? "" } })).toMatchObject({
    status: 202,
    token: expect.not.stringMatching(taken.token ?? ""),
  });
  expect(await seenBy(account)).toBe(before + 1);
});

test("CRD-5 no signature but the consumer's opens a lease with a job, and the quote stands", async () => {
  creditIs(5_000_000n);
  const agent = await listed("POOL_B");
  const account = newAccount();
  const job = await jobOf(account, "POOL_B");
  const [asked] = await Promise.all([send(account, { json: job }), agent.confirm()]);
  const paid = await payment(account, asked.body);
  const forged = await payment(newAccount(), asked.body);
  expect((await send(account, { json: { ...job, ...forged } })).body).toMatchObject({
    code: "funding_invalid",
  });
  const { lease: _, ...nameless } = paid;
  expect((await send(account, { json: { ...job, ...nameless } })).body).toMatchObject({
    code: "funding_invalid",
  });
  const stranger = newAccount();
  expect((await send(stranger, { json: { ...job, ...paid } })).body).toMatchObject({ code: "quote_unknown" });
  expect(await send(account, { json: { ...job, ...paid } })).toMatchObject({ status: 202 });
});

test("CRD-5 a credit that does not suffice, or that nobody can look up, offers nothing to sign", async () => {
  const [poor, unknown] = [newAccount(), newAccount()];
  const agent = await listed("POOL_C");
  const ask = async (account: Account) => {
    const json = await jobOf(account, "POOL_C");
    const [asked] = await Promise.all([send(account, { json }), agent.confirm()]);
    return asked.body;
  };
  creditIs(899_999n);
  expect(await ask(poor)).toMatchObject({ code: "payment_required", quote: { amount: "900000" } });
  creditIs(5_000_000n, 1_800_000_000);
  expect(await ask(poor), "on its way back to its payer").not.toHaveProperty("credit");
  vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("no node"));
  vi.spyOn(console, "error").mockImplementation(() => undefined);
  // Both quotes are held now.
  const body = await call(unknown, "/v1/credit");
  expect([body.status, await body.json()]).toMatchObject([503, { code: "chain_unavailable" }]);
});

test("a credit is shown to its payer and its spender, and to nobody else", async () => {
  const [payer, spender] = [newAccount(), newAccount()];
  creditIs(7n, 1_800_000_000);
  const shown = await call(spender, `/v1/credit?payer=${addressOf(payer)}`);
  expect([shown.status, await shown.json()]).toEqual([
    200,
    {
      object: "credit",
      payer: addressOf(payer),
      spender: addressOf(spender),
      meter: env.METER_ADDRESS.toLowerCase(),
      balance: "7",
      release_at: "2027-01-15T08:00:00.000Z",
    },
  ]);
  expect((await call(payer, `/v1/credit?spender=${addressOf(spender)}`)).status).toBe(200);
  const others = await call(
    newAccount(),
    `/v1/credit?payer=${addressOf(payer)}&spender=${addressOf(spender)}`,
  );
  expect([others.status, await others.json()]).toMatchObject([403, { code: "forbidden" }]);
});

test("POOL-2 a token leads only the key and demand that it was made for, in every bit", async () => {
  const config = configOf(env);
  const lease = Quote.shape.lease_id.parse(`lse_${"a".repeat(32)}`);
  const newPrincipal = () => principalOf(newAccount());
  const by: Principal = newPrincipal();
  const demand = Demand.parse({ gpu_model: "POOL_D" });
  const token = await leaseToken(config, by, demand, lease);
  const led = (text: string, as = by, wanted = demand) =>
    routedLease(config, new Request("https://edge", { headers: { "gpux-lease": text } }), as, wanted);
  expect(await led(token)).toBe(lease);
  const elsewhere = token.replace(`lse_${"a".repeat(32)}`, `lse_${"b".repeat(32)}`);
  const flipped = token.slice(0, -2) + (token.at(-2) === "A" ? "B" : "A") + token.slice(-1);
  for (const text of [elsewhere, flipped, lease, `${lease}.`, `${token}.x`, "x", ""])
    expect(await led(text), text).toBeNull();
  expect(await led(token, newPrincipal())).toBeNull();
  const session = { id: SessionId.parse(`ses_${"a".repeat(26)}`), scopes: [], bearer: false };
  expect(await led(token, { ...by, session })).toBeNull();
  expect(await led(token, by, Demand.parse({ gpu_model: "POOL_D", resources: { gpus: 2 } }))).toBeNull();
});
