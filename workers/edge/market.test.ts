import { SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { addressOf, call, newAccount, ORIGIN } from "@gpux/durable-objects/testing/client";
import { ECHO } from "@gpux/durable-objects/testing/echo";
import { store } from "@gpux/durable-objects/testing/functions";
import { offerOf, ScriptedAgent } from "@gpux/durable-objects/testing/scripted-agent";
import { WellKnown } from "@gpux/protocol/answers";
import { LeaseView, Quote } from "@gpux/protocol/lease";
import { expect, test } from "vitest";

async function json(path: string): Promise<unknown> {
  return (await SELF.fetch(ORIGIN + path)).json();
}

async function listed(model: string, gpu_hour: string): Promise<ScriptedAgent> {
  const agent = await ScriptedAgent.join(offerOf(model, { gpu_hour }));
  const book = env.BOOK.getByName(`${model}/any/0`);
  await expect.poll(() => book.get(addressOf(agent.account))).toMatchObject({ status: "online" });
  return agent;
}

test("offers are listed cheapest first with what they cost for this demand", async () => {
  const [dear, cheap] = [await listed("MARKET_A", "200"), await listed("MARKET_A", "100")];
  expect(await json("/v1/offers?gpu_model=MARKET_A")).toMatchObject({
    object: "list",
    data: [
      { id: addressOf(cheap.account), rate_per_hour: "100" },
      { id: addressOf(dear.account), rate_per_hour: "200" },
    ],
    has_more: false,
    blockers: {},
  });
  expect(await json("/v1/offers?gpu_model=MARKET_A&max_rate_per_hour=150")).toMatchObject({
    data: [{ rate_per_hour: "100" }],
  });
  expect(await json("/v1/offers?gpu_model=MARKET_A&gpus=2")).toMatchObject({
    data: [],
    blockers: { gpus: 2 },
  });
  expect(await json("/v1/offers?gpu_model=MARKET_A&limit=1")).toMatchObject({ has_more: true });
});

test("a node is found by its address, in any case, and in the list of all", async () => {
  const agent = await listed("MARKET_B", "100");
  const id = addressOf(agent.account);
  expect(await json(`/v1/nodes/${agent.account.address}`)).toMatchObject({
    id,
    object: "node",
    status: "online",
    gpus_free: 1,
    prices: { gpu_hour: "100" },
  });
  const before = `0x${(BigInt(id) - 1n).toString(16).padStart(40, "0")}`;
  await expect.poll(() => json(`/v1/nodes?limit=1&after=${before}`)).toMatchObject({ data: [{ id }] });
});

test("a quote asked for over HTTP is what the wire schema says, and its lease is its payer's alone to see", async () => {
  const agent = await listed("MARKET_C", "3600000");
  const account = newAccount();
  const [response] = await Promise.all([
    call(account, "/v1/quotes", { json: { demand: { gpu_model: "MARKET_C" }, amount: "5" } }),
    agent.confirm(),
  ]);
  expect(response.status).toBe(201);
  const quote = Quote.parse(await response.json());
  expect(quote.amount).toBe(5n);
  const lease = await call(account, `/v1/leases/${quote.lease_id}`);
  expect(LeaseView.parse(await lease.json())).toMatchObject({
    status: "quoted",
    node: addressOf(agent.account),
  });
  const strangers = await call(newAccount(), `/v1/leases/${quote.lease_id}`);
  expect([strangers.status, await strangers.json()]).toMatchObject([403, { code: "forbidden" }]);
  // Not before it is funded.
  expect(await (await call(account, "/v1/leases")).json()).toEqual({
    object: "list",
    data: [],
    has_more: false,
  });
});

test("a job without a lease is answered by 402 and the quote that pays for it", async () => {
  const agent = await listed("MARKET_D", "3600000");
  const account = newAccount();
  const job = {
    function: await store(account, ECHO),
    inputs: { value: { number: 1 } },
    max_price: "1000",
    demand: { gpu_model: "MARKET_D" },
  };
  const [response] = await Promise.all([call(account, "/v1/jobs", { json: job }), agent.confirm()]);
  expect(response.status).toBe(402);
  const body: { code: string; quote: unknown } = await response.json();
  expect(body.code).toBe("payment_required");
  expect(Quote.parse(body.quote).terms.payer).toBe(addressOf(account));
});

test("a price below every offer is refused with the counts of what blocks", async () => {
  await listed("MARKET_E", "3600000");
  const demand = { gpu_model: "MARKET_E", max_rate_per_hour: "1" };
  const response = await call(newAccount(), "/v1/quotes", { json: { demand } });
  expect([response.status, await response.json()]).toMatchObject([
    422,
    { code: "price_below_offers", wait: { possible: false, blockers: { price: 1 } } },
  ]);
});

test("the well-known facts are those that terms are written with", async () => {
  const facts = WellKnown.parse(await json("/.well-known/gpux"));
  expect(facts).toMatchObject({ origin: ORIGIN, settlement: { chain_id: 31_337 }, fee_bps: 500 });
});
