import { SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { findOffers } from "@gpux/durable-objects/offers";
import { addressOf, call, newAccount, ORIGIN } from "@gpux/durable-objects/testing/client";
import { ECHO } from "@gpux/durable-objects/testing/echo";
import { store } from "@gpux/durable-objects/testing/functions";
import { offerOf, ScriptedAgent } from "@gpux/durable-objects/testing/scripted-agent";
import { WellKnown } from "@gpux/protocol/answers";
import { LeaseView, Quote } from "@gpux/protocol/lease";
import { GpuPrices, OfferList } from "@gpux/protocol/market";
import { Demand } from "@gpux/protocol/resources";
import { expect, test } from "vitest";

async function json(path: string): Promise<unknown> {
  return (await SELF.fetch(ORIGIN + path)).json();
}

const listed = (model: string, gpu_hour: string) => ScriptedAgent.listed(offerOf(model, { gpu_hour }));

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

test("MKT-2 offers are searched with Vast's operators and shown under its names", async () => {
  const features = ["webgpu", "shader-f16"];
  const offers = [
    { gpus: 4, gpu_hour: "400000", region: "eu-west", features },
    { gpus: 8, gpu_hour: "300000", region: "us-east", start_price: "5000" },
    { gpus: 2, gpu_hour: "100000", region: "eu-west", features },
  ];
  const [four, eight, two] = await Promise.all(
    offers.map(async (change) => {
      const agent = await ScriptedAgent.listed(offerOf("MARKET_F", change));
      return addressOf(agent.account);
    }),
  );
  const search = async (query: string) => {
    const answer = await json(`/v1/offers?gpu_name=MARKET_F&${query}`);
    return OfferList.parse(answer).data.map(({ id }) => id);
  };
  expect(await search("num_gpus[gte]=4&order=dph_total")).toEqual([eight, four]);
  expect(await search("num_gpus[gte]=4&order=-dph_total")).toEqual([four, eight]);
  expect(await search("geolocation[neq]=us-east")).toEqual([two, four]);
  expect(await search("num_gpus=2&dph_total[lt]=0.6")).toEqual([two]);
  expect(await search("num_gpus=2&dph_total[lte]=0.6")).toEqual([two, eight]);
  expect(await search("start_usd[lt]=0.005")).toEqual([two, four]);
  expect(await search("start_usd[gt]=0")).toEqual([eight]);
  expect(await json("/v1/offers?gpu_name=MARKET_F&start_usd=0.005")).toMatchObject({
    data: [{ id: eight, start_price: "5000", start_usd: "0.005", dph_total: "0.30" }],
  });
  expect(await search(`machine_id[notin]=${two},${four}`)).toEqual([eight]);
  expect(await search("features=shader-f16&geolocation=eu-west&num_gpus=3")).toEqual([four]);
  expect(await json("/v1/offers?gpu_name=MARKET_F&num_gpus=4&limit=1")).toMatchObject({
    data: [
      { gpu_name: "MARKET_F", num_gpus: 4, gpu_ram: 24_000, dph_total: "1.20", min_bid: null, tier: "firm" },
    ],
    has_more: true,
  });
});

test("MKT-2 an empty search says why and whether waiting may help, a bad one what is allowed", async () => {
  await listed("MARKET_G", "100");
  expect(await json("/v1/offers?gpu_name=MARKET_G&isolation[gte]=vm&cpu_cores[gte]=4")).toMatchObject({
    data: [],
    blockers: { isolation: 1 },
    wait: { possible: false, blockers: { isolation: 1 } },
  });
  // No such GPU anywhere: of all that is online, none has it.
  const none = OfferList.parse(await json("/v1/offers?gpu_name=MARKET_NONE&geolocation=eu-west"));
  expect(none.blockers.gpu_model).toBeGreaterThan(0);
  const response = await SELF.fetch(`${ORIGIN}/v1/offers?num_gpu[gte]=4`);
  expect([response.status, await response.json()]).toMatchObject([
    422,
    {
      code: "invalid_request",
      errors: [{ pointer: "query/num_gpu[gte]", detail: expect.stringContaining("fields are gpu_name") }],
    },
  ]);
});

test("MKT-7 a GPU's price index is of what online nodes ask, weighted by GPUs", async () => {
  await Promise.all([listed("MARKET_H", "100"), listed("MARKET_H", "200"), listed("MARKET_H", "400")]);
  await expect
    .poll(async () => {
      const { data } = GpuPrices.parse(await json("/v1/gpu-prices"));
      return data.find(({ gpu_name }) => gpu_name === "MARKET_H");
    })
    .toEqual({
      gpu_name: "MARKET_H",
      nodes: 3,
      gpus: { online: 3, free: 3 },
      asks: {
        firm: { min: 100n, p25: 100n, median: 200n, p75: 400n, max: 400n, gpus: 3 },
        yieldable: null,
      },
      settled: { days: 7, firm: null, yieldable: null },
    });
});

test("MKT-8 nodes of a sharded model are all found, in whichever shards they stand", async () => {
  const agents = await Promise.all(
    [1, 2, 3, 4, 5, 6].map((price) => ScriptedAgent.join(offerOf("SHARDED", { gpu_hour: String(price) }))),
  );
  const ids = agents.map(({ account }) => addressOf(account));
  await expect
    .poll(async () => OfferList.parse(await json("/v1/offers?gpu_name=SHARDED")).data.map(({ id }) => id))
    .toEqual(ids);
  const rows = await Promise.all(
    [0, 1, 2].map((shard) => env.BOOK.getByName(`SHARDED/eu-west/${shard}`).list(null, 10)),
  );
  expect(
    rows
      .flat()
      .map(({ node }) => node)
      .sort(),
  ).toEqual([...ids].sort());
  const few = await findOffers(env, Demand.parse({ gpu_model: "SHARDED", region: "eu-west" }), 6);
  expect(few.entries.map(({ node }) => node)).toEqual(ids);
  const exclude = { nodes: ids.slice(0, 4), providers: ids.slice(4, 5) };
  const rest = await findOffers(env, Demand.parse({ gpu_model: "SHARDED", exclude }), 6);
  expect(rest.entries.map(({ node }) => node)).toEqual(ids.slice(5));
});

test("MKT-9 region and model are given up where the demand lets them go, the better match first", async () => {
  await listed("MARKET_I", "100");
  const wanted = { gpu_model: "MARKET_I", region: "us-east" };
  const strict = await findOffers(env, Demand.parse(wanted), 2);
  expect(strict).toMatchObject({ entries: [], blockers: { region: 1 }, offers: 1 });
  const spilt = await findOffers(env, Demand.parse({ ...wanted, spill: ["region"] }), 1);
  expect(spilt.entries).toMatchObject([{ offer: { region: "eu-west" } }]);
  const there = await listed("MARKET_J", "100");
  const other = { gpu_model: "MARKET_NONE", node: addressOf(there.account) };
  const another = await findOffers(env, Demand.parse({ ...other, spill: ["gpu_model"] }), 1);
  expect(another.entries).toMatchObject([{ node: addressOf(there.account) }]);
});

test("MKT-4 who wanted to buy and found nothing is counted at the nodes that were passed by", async () => {
  const agent = await listed("MARKET_K", "100");
  const demand = { gpu_model: "MARKET_K", region: "us-east", resources: { cpu: 9 } };
  const refused = await call(newAccount(), "/v1/quotes", { json: { demand } });
  expect(refused.status).toBe(503);
  expect(await json(`/v1/nodes/${addressOf(agent.account)}`)).toMatchObject({
    skipped: { region: 1, cpu: 1 },
  });
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
