import { authorizationDigest, fundingNonce } from "@gpux/protocol/eip712";
import type { KeptIntentWire } from "@gpux/protocol/kept";
import { Order, OrderFunding, WalletOrderAuthorization } from "@gpux/protocol/order";
import { recoverSigner } from "@gpux/protocol/signature";
import { expect, it } from "vitest";
import { createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import { consumer, lower, provider, quoteAt, settlement } from "./testing/market.ts";
import { createScriptedEdge, refuse } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

const RESOURCES = { gpus: 1, cpu: 0, memory_gb: 0 };
const OWNERS = ["9a", "9b", "9c"] as const;
const NODES = [lower(provider.address), `0x${"0b".repeat(20)}`, `0x${"0c".repeat(20)}`] as const;

function setUp(change: (n: number) => Parameters<typeof quoteAt>[1] = () => ({}), refused?: Response) {
  const { timing } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const kept: KeptIntentWire[] = [];
  const client = createClient({
    url: "https://edge.test",
    account: consumer,
    fetch: edge.fetch,
    timing,
    maxRetries: 0,
    keep: (funding) => void kept.push(funding),
  });
  const quotes = NODES.map((node, n) => {
    const { terms, text, after } = change(n) ?? {};
    const owner = `0x${OWNERS[n]?.repeat(20)}` as const;
    return quoteAt(timing.now(), {
      text: { node, salt: `0x${`0${n}`.repeat(32)}`, ...text },
      terms: { provider: owner, providerSigner: node, ...terms },
      ...(after === undefined ? {} : { after }),
    });
  });
  const order: Order = {
    id: Order.shape.id.parse(`ord_${"a".repeat(32)}`),
    object: "order",
    status: "quoted",
    spread: "distinct-provider",
    quotes,
    funding: {
      lease_hashes: quotes.map(({ lease_hash }) => lease_hash),
      amounts: quotes.map(({ amount }) => amount),
      total: 2_700_000n,
    },
    leases: quotes.map(({ lease_id: id, text }) => ({ id, node: text.node, status: "quoted", funded: 0n })),
    expires_at: new Date(timing.now() + 30_000).toISOString(),
    created_at: new Date(timing.now()).toISOString(),
  };
  const answer = (status: Order["status"]) => () =>
    Response.json(Order.encode({ ...order, status }), { status: 201 });
  if (refused !== undefined) edge.script("POST /v1/leases", () => refused);
  edge.script("POST /v1/leases", answer("quoted"));
  edge.script("POST /v1/leases", answer("open"));
  const sent = () =>
    edge.seen.filter(({ route }) => route === "POST /v1/leases").map(({ body }) => JSON.parse(body));
  return { client, edge, order, kept, sent };
}

it("funds all leases of an order by one signature over their sum, kept before it leaves", async () => {
  const { client, order, kept, sent } = setUp();
  const opened = await client.leases.order({ nodes: 3, resources: RESOURCES, amount: 1_000_000n });
  expect(opened.status).toBe("open");
  const [asked, signed] = sent();
  expect(asked).toMatchObject({ nodes: 3, resources: RESOURCES, amount: "1000000" });
  const { order: id } = OrderFunding.parse(signed);
  const funding = WalletOrderAuthorization.parse(signed.funding);
  expect([id, funding.amounts]).toEqual([order.id, [1_000_000n, 1_000_000n, 1_000_000n]]);
  const token = {
    name: settlement.token_name,
    version: settlement.token_version,
    chainId: settlement.chain_id,
    verifyingContract: settlement.token,
  };
  const { amounts, salt } = funding;
  const hash = authorizationDigest(token, {
    from: lower(consumer.address),
    to: settlement.escrow,
    value: 3_000_000n,
    validAfter: 0n,
    validBefore: BigInt(funding.valid_before),
    nonce: fundingNonce({ leaseIds: order.funding.lease_hashes, amounts, salt }),
  });
  expect(await recoverSigner(hash, funding.signature)).toBe(lower(consumer.address));
  expect(kept).toMatchObject([{ intent: { kind: "fund", amounts: ["1000000", "1000000", "1000000"] } }]);
});

it.each<[string, (n: number) => Parameters<typeof quoteAt>[1]]>([
  ["one quote is dearer than asked", (n) => (n === 2 ? { terms: { ratePerHour: 3_600_001n } } : {})],
  ["two nodes belong to one owner", () => ({ terms: { provider: `0x${"9a".repeat(20)}` } })],
  ["two leases are of one node", () => ({ text: { node: NODES[0] }, terms: { providerSigner: NODES[0] } })],
  ["one has another payer", (n) => (n === 1 ? { terms: { payer: `0x${"0d".repeat(20)}` } } : {})],
])("signs nothing when %s", async (_, change) => {
  const { client, kept, sent } = setUp(change);
  const refused = await client.leases
    .order({ nodes: 3, resources: RESOURCES })
    .catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "quote_mismatch" });
  expect(kept).toEqual([]);
  expect(sent()).toHaveLength(1);
});

it("says how many nodes were found when they are too few", async () => {
  const wait = { possible: true, blockers: { gpus: 1 }, found: 2, wanted: 3 };
  const { client } = setUp(() => ({}), refuse("no_capacity", { wait }));
  const refused = await client.leases.order({ nodes: 3 }).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(GpuxError);
  expect(refused).toMatchObject({ code: "no_capacity", problem: { wait } });
});
