import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { IntentAnswer } from "@gpux/protocol/intent";
import { type Order, OrderRequest } from "@gpux/protocol/order";
import { expect, test } from "vitest";
import { configOf } from "../config.ts";
import { type Account, addressOf, newAccount, principalOf } from "../testing/client.ts";
import { offerOf, ScriptedAgent } from "../testing/scripted-agent.ts";
import { AccountStore } from "./store.ts";

const objectOf = (account: Account) => env.ACCOUNT.getByName(addressOf(account));
const evict = (account: Account) => evictDurableObject(objectOf(account));
const HASH = "aa".repeat(32);

/** Nodes of as many owners whose offers stand in their book. */
function listed(model: string, count: number): Promise<ScriptedAgent[]> {
  return Promise.all(Array.from({ length: count }, () => ScriptedAgent.listed(offerOf(model, { gpus: 4 }))));
}

const requestOf = (gpu_model: string, change: object = {}) =>
  OrderRequest.parse({
    nodes: 3,
    resources: { gpus: 4, cpu: 8, memory_gb: 32 },
    demand: { gpu_model },
    ...change,
  });

const place = (account: Account, request: OrderRequest, key: string | null = null, hash = HASH) =>
  objectOf(account).order(principalOf(account), key, hash, request);

async function quoted(
  account: Account,
  agents: readonly ScriptedAgent[],
  request: OrderRequest,
): Promise<Order> {
  const [answer] = await Promise.all([place(account, request), ...agents.map((agent) => agent.confirm())]);
  if (!answer.ok) throw new Error(`${answer.code}: ${answer.detail}`);
  return answer.order;
}

const fundingOf = (order: Order, change: object = {}) => ({
  amounts: order.funding.amounts,
  salt: `0x${"01".repeat(32)}` as const,
  valid_after: 0,
  valid_before: Math.floor(Date.now() / 1_000) + 600,
  signature: "0x00" as const,
  ...change,
});

const nodeOf = (agent: ScriptedAgent) => env.NODE.getByName(addressOf(agent.account));

async function isFree(agent: ScriptedAgent): Promise<boolean> {
  const described = await nodeOf(agent).describe();
  return described.ok && described.free.gpus.length === 4 && described.free.cpu === 8;
}

test("ORD-1 an order holds all of every node, and says what one signature would fund", async () => {
  const agents = await listed("ORDER_A", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_A"));
  expect(order).toMatchObject({ status: "quoted", spread: "distinct-provider" });
  expect(order.quotes.map(({ terms }) => terms.providerSigner).sort()).toEqual(
    agents.map((agent) => addressOf(agent.account)).sort(),
  );
  expect(order.funding.lease_hashes).toEqual(order.quotes.map(({ lease_hash }) => lease_hash));
  expect(order.funding.total).toBe(order.quotes.reduce((sum, { amount }) => sum + amount, 0n));
  for (const agent of agents) expect(await isFree(agent)).toBe(false);
  await evict(account);
  expect(await objectOf(account).viewOrder(principalOf(account), order.id)).toEqual({ ok: true, order });
});

test("ORD-2 one node that declines releases all, and the next order gets them at once", async () => {
  const agents = await listed("ORDER_B", 3);
  const account = newAccount();
  const placing = place(account, requestOf("ORDER_B"));
  const [first, ...others] = agents;
  await Promise.all(others.map((agent) => agent.confirm()));
  const { hold } = (await first?.next("hold")) ?? {};
  first?.tell({ t: "declined", hold, reason: "gaming" });
  expect(await placing).toMatchObject({
    ok: false,
    code: "no_capacity",
    wait: { possible: true, found: 2, wanted: 3, blockers: { gpus: 1 } },
  });
  for (const agent of others) await agent.next("release");
  for (const agent of agents) expect(await isFree(agent)).toBe(true);
  await quoted(account, agents, requestOf("ORDER_B"));
});

test("ORD-2 an order larger than the market asks nobody, and says how many there are", async () => {
  const agents = await listed("ORDER_C", 2);
  const account = newAccount();
  expect(await place(account, requestOf("ORDER_C"))).toMatchObject({
    ok: false,
    code: "no_capacity",
    wait: { possible: false, found: 2, wanted: 3 },
  });
  for (const agent of agents) expect(await isFree(agent)).toBe(true);
});

test("ORD-2 two orders race for the last node: exactly one gets it, and the other is told that waiting helps", async () => {
  const [agent] = await listed("ORDER_N", 1);
  if (agent === undefined) throw new Error("a node is listed");
  const request = requestOf("ORDER_N", { nodes: 1 });
  const placing = Promise.all([newAccount(), newAccount()].map((account) => place(account, request)));
  await agent.confirm();
  const answers = await placing;
  expect(answers.filter((answer) => answer.ok)).toMatchObject([{ order: { status: "quoted" } }]);
  expect(answers.filter((answer) => !answer.ok)).toMatchObject([
    { code: "no_capacity", wait: { possible: true, wanted: 1, blockers: { gpus: 1 } } },
  ]);
  expect(await isFree(agent)).toBe(false);
});

test("ORD-2 two orders race for the last two nodes: never do both have one, and who has too few holds none", async () => {
  const agents = await listed("ORDER_D", 2);
  const accounts = [newAccount(), newAccount()];
  const placing = Promise.all(accounts.map((account) => place(account, requestOf("ORDER_D", { nodes: 2 }))));
  // A node is asked once, for it has no room for both.
  await Promise.all(agents.map((agent) => agent.confirm()));
  const answers = await placing;
  const won = answers.filter((answer) => answer.ok);
  const lost = answers.filter((answer) => !answer.ok);
  // Each may have got one of the two: then neither has both, and all is free again.
  expect(won.length).toBeLessThanOrEqual(1);
  for (const each of lost) expect(each).toMatchObject({ code: "no_capacity", wait: { possible: true } });
  if (won.length === 0) for (const agent of agents) expect(await isFree(agent)).toBe(true);
});

test("ORD-6 the same key is the same order; another body under it is refused", async () => {
  const agents = await listed("ORDER_E", 3);
  const account = newAccount();
  const request = requestOf("ORDER_E");
  const [first] = await Promise.all([
    place(account, request, "key-1"),
    ...agents.map((agent) => agent.confirm()),
  ]);
  await evict(account);
  const again = await place(account, request, "key-1");
  expect(again).toEqual({ ...first, replayed: true });
  expect(await place(account, request, "key-1", "bb".repeat(32))).toMatchObject({
    code: "idempotency_key_reused",
  });
});

test("ORD-6 an order that a crash cut off is let go of by its retry, which begins anew", async () => {
  const agents = await listed("ORDER_F", 3);
  const account = newAccount();
  const request = requestOf("ORDER_F");
  const cut = await quoted(account, agents, request);
  // What a life leaves behind that ended while it asked.
  await runInDurableObject(objectOf(account), (_, ctx) => {
    const store = new AccountStore(ctx.storage.sql);
    const order = store.order(cut.id);
    if (order !== null)
      store.saveOrder(order, { ...order, scope: "key:key-1", phase: "gathering", createdAt: Date.now() });
  });
  await evict(account);
  const retried = place(account, request, "key-1");
  await Promise.all(
    agents.map(async (agent) => {
      await agent.next("release");
      await agent.confirm();
    }),
  );
  expect(await retried).toMatchObject({ ok: true, replayed: false, order: { status: "quoted" } });
});

test("ORD-3 a node that went since it confirmed refuses the whole order, and the others are free again", async () => {
  const agents = await listed("ORDER_G", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_G"));
  agents[0]?.close(1000);
  await agents[0]?.closed;
  const funded = await objectOf(account).fundOrder(principalOf(account), order.id, fundingOf(order));
  expect(funded).toMatchObject({ ok: false, code: "node_offline" });
  for (const agent of agents.slice(1)) expect(await isFree(agent)).toBe(true);
  expect(await objectOf(account).viewOrder(principalOf(account), order.id)).toMatchObject({
    order: { status: "released", end: { code: "node_offline" } },
  });
});

/** What the relayer answers to everything; the objects of this file share one `env`. */
async function relayer(answer: IntentAnswer): Promise<void> {
  await runInDurableObject(objectOf(newAccount()), (account) => {
    Object.assign(Reflect.get(account, "env"), { RELAYER: { submit: async () => answer } });
  });
}

test("ORD-3 what the chain would refuse funds no lease, and every node is free again", async () => {
  const agents = await listed("ORDER_K", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_K"));
  await relayer({ status: "rejected", key: null, code: "insufficient_balance", detail: "it has 1" });
  expect(await objectOf(account).fundOrder(principalOf(account), order.id, fundingOf(order))).toMatchObject({
    ok: false,
    code: "insufficient_funds",
    detail: "it has 1",
  });
  for (const agent of agents) expect(await isFree(agent)).toBe(true);
  for (const { id } of order.leases)
    expect(await env.LEASE.getByName(id).view(addressOf(account))).not.toMatchObject({
      lease: { status: "funding" },
    });
});

test("ORD-4 a signed order is under way in every lease, each with its own part, also across evictions", async () => {
  const agents = await listed("ORDER_H", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_H"));
  for (const agent of agents) await evictDurableObject(nodeOf(agent));
  await evict(account);
  await relayer({ status: "pending", key: "fund:x", txHash: null });
  const funding = fundingOf(order, { amounts: [5n, 6n, 7n] });
  const funded = await objectOf(account).fundOrder(principalOf(account), order.id, funding);
  expect(funded).toMatchObject({ ok: true, order: { status: "open", funding: { total: 18n } } });
  for (const { id } of order.leases)
    expect(await env.LEASE.getByName(id).view(addressOf(account))).toMatchObject({
      lease: { status: "funding", order_id: order.id },
    });
  // The same signature again changes nothing, another one is refused.
  expect(await objectOf(account).fundOrder(principalOf(account), order.id, funding)).toMatchObject({
    ok: true,
  });
  const other = { ...funding, salt: `0x${"02".repeat(32)}` as const };
  expect(await objectOf(account).fundOrder(principalOf(account), order.id, other)).toMatchObject({
    ok: false,
    code: "order_closed",
  });
});

test("CRD-1 an order from credit is one allocation for all leases, which the meter signs as well", async () => {
  const agents = await listed("ORDER_L", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_L"));
  await relayer({ status: "pending", key: "allocate:x", txHash: null });
  const valid_before = Math.floor(Date.now() / 1_000) + 600;
  const fund = async (funded_to: bigint[], by: Account = account) => {
    const leaseIds = order.funding.lease_hashes;
    const hash = configOf(env).hasher.allocate({ leaseIds, fundedTo: funded_to, validBefore: valid_before });
    const signature = await by.sign({ hash });
    const funding = { kind: "credit", funded_to, valid_before, signature } as const;
    return objectOf(account).fundOrder(principalOf(account), order.id, funding);
  };
  expect(await fund([5n, 6n])).toMatchObject({ code: "funding_invalid" });
  const funded = await fund([5n, 6n, 7n]);
  expect(funded).toMatchObject({ ok: true, order: { status: "open", funding: { total: 18n } } });
  for (const { id } of order.leases)
    expect(await env.LEASE.getByName(id).view(addressOf(account))).toMatchObject({
      lease: { status: "funding", order_id: order.id, from_credit: true },
    });
  // The same targets are the same wish, others are not.
  expect(await fund([5n, 6n, 7n])).toMatchObject({ ok: true });
  expect(await fund([5n, 6n, 8n])).toMatchObject({ ok: false, code: "order_closed" });
}, 20_000);

test("CRD-2 an order that another key allocates is let go of: the meter does not sign it", async () => {
  const agents = await listed("ORDER_M", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_M"));
  const valid_before = Math.floor(Date.now() / 1_000) + 600;
  const leaseIds = order.funding.lease_hashes;
  const funded_to = [5n, 6n, 7n];
  const hash = configOf(env).hasher.allocate({ leaseIds, fundedTo: funded_to, validBefore: valid_before });
  const signature = await newAccount().sign({ hash });
  const funding = { kind: "credit", funded_to, valid_before, signature } as const;
  expect(await objectOf(account).fundOrder(principalOf(account), order.id, funding)).toMatchObject({
    ok: false,
    code: "funding_invalid",
  });
  for (const agent of agents) expect(await isFree(agent)).toBe(true);
});

test("ORD-7 of an order no lease opens alone, nobody else funds it, and unsigned it lapses", async () => {
  const agents = await listed("ORDER_I", 3);
  const account = newAccount();
  const order = await quoted(account, agents, requestOf("ORDER_I"));
  const [first] = order.leases;
  const { amounts: _, ...alone } = fundingOf(order);
  if (first === undefined) throw new Error("the order has leases");
  expect(
    await objectOf(account).openLease(principalOf(account), first.id, { ...alone, amount: 5n }),
  ).toMatchObject({ ok: false, code: "funding_invalid" });
  const stranger = newAccount();
  expect(await objectOf(stranger).fundOrder(principalOf(stranger), order.id, fundingOf(order))).toMatchObject(
    {
      code: "order_unknown",
    },
  );
  expect(
    await objectOf(account).fundOrder(principalOf(account), order.id, fundingOf(order, { amounts: [1n] })),
  ).toMatchObject({ code: "funding_invalid" });
  await runInDurableObject(objectOf(account), (_, ctx) => {
    ctx.storage.sql.exec("UPDATE legs SET doc = json_set(doc, '$.hold.expiresAt', 1)");
  });
  await evict(account);
  expect(await runDurableObjectAlarm(objectOf(account))).toBe(true);
  expect(await objectOf(account).viewOrder(principalOf(account), order.id)).toMatchObject({
    order: { status: "released", end: { code: "quote_expired" } },
  });
  for (const agent of agents) expect(await isFree(agent)).toBe(true);
});

test("QTE-5 an order counts what it holds: beyond what is free it is refused with when", async () => {
  await listed("ORDER_J", 1);
  const account = newAccount();
  await runInDurableObject(objectOf(account), (_, ctx) =>
    new AccountStore(ctx.storage.sql).saveHolding({ gpuS: 3_590, at: Date.now() }),
  );
  expect(await place(account, requestOf("ORDER_J", { nodes: 1 }))).toMatchObject({
    ok: false,
    code: "hold_limit",
    detail: expect.stringMatching(/room for it in 1\d\d s/),
  });
});
