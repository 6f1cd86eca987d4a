import type { JobView } from "@gpux/protocol/job";
import { NodeView } from "@gpux/protocol/lease";
import type { Order } from "@gpux/protocol/order";
import type { Client, OrderInput } from "@gpux/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Fleet, openFleet } from "./testing/fleet.ts";
import { publish, smallProduct, sumOf, until } from "./testing/market.ts";

// The order that GPUX was proposed with, on three real agents with simulated machines; a fourth one breaks the next.

const DEPOSIT = 1_000_000n;
const TOP_UP = 500_000n;
const wanted = { nodes: 3, resources: { gpus: 4, cpu: 32, memory_gb: 128 }, amount: DEPOSIT } as const;

let fleet: Fleet;
let client: Client;

beforeAll(async () => {
  fleet = await openFleet(3);
  client = fleet.client();
}, 300_000);
afterAll(() => fleet?.stop());

async function closed(order: Order): Promise<void> {
  for (const { id } of order.leases) await client.leases.close(id);
  await until(async () => {
    const views = await Promise.all(order.leases.map(({ id }) => client.leases.get(id)));
    const owed = await Promise.all(fleet.nodes.map(({ ledger }) => ledger.owed()));
    return views.every(({ status }) => status === "closed") && owed.every((amount) => amount === 0n);
  }, "the order's leases are closed and paid out");
}

/** By node, that many of its GPUs are free. */
async function free(): Promise<number[]> {
  return Promise.all(
    fleet.nodes.map(async ({ address }) => {
      const node = await fetch(`${fleet.edge.url}/v1/nodes/${address}`);
      return NodeView.parse(await node.json()).gpus_free;
    }),
  );
}

const conflict = (order: OrderInput) =>
  client.leases.order(order).then(
    () => null,
    (error: { code: string; problem?: { wait?: unknown } }) => error,
  );

describe("an order of 3 x {32 cores, 128 GB, 4 GPUs}", { timeout: 300_000 }, () => {
  it("ORD-1 to ORD-5 opens by one signature, works, is topped up, closed and refunded, to the base unit", async () => {
    const before = await Promise.all(fleet.nodes.map(({ ledger }) => ledger.balances()));
    const order = await client.leases.order(wanted);
    expect(order).toMatchObject({ status: "open", funding: { total: 3n * DEPOSIT } });
    expect(new Set(order.leases.map(({ node }) => node))).toEqual(
      new Set(fleet.nodes.map((node) => node.address)),
    );
    await until(async () => {
      const { leases } = await client.leases.getOrder(order.id);
      return leases.every(({ status, funded }) => status === "active" && funded === DEPOSIT);
    }, "every lease of the order has its money");
    expect(await free()).toEqual([0, 0, 0]);

    const echo = await publish(client, "matmul");
    const jobs: JobView[] = await Promise.all(
      order.leases.map(({ id }) =>
        client.jobs.run({ function: echo, inputs: smallProduct(2), max_price: 20_000n, lease: id }),
      ),
    );
    for (const job of jobs) expect(job).toMatchObject({ status: "succeeded" });

    const [first] = order.leases;
    if (first === undefined) throw new Error("the order has leases");
    await client.leases.topUp(first.id, TOP_UP);
    await until(
      async () => (await client.leases.get(first.id)).funded === DEPOSIT + TOP_UP,
      "the top-up has landed in the one lease that it was for",
    );

    await closed(order);
    const leases = await Promise.all(order.leases.map(({ id }) => client.leases.get(id)));
    // One funding for the three, whose cost they bear in parts.
    const fundings = leases.map(({ transactions }) => transactions.filter(({ kind }) => kind === "fund"));
    expect(new Set(fundings.map(([funding]) => funding?.hash)).size).toBe(1);
    expect(fundings.map(({ length }) => length)).toEqual([2, 1, 1]);
    expect(leases.map(({ order_id }) => order_id)).toEqual([order.id, order.id, order.id]);

    const prices = sumOf(jobs);
    const after = await Promise.all(fleet.nodes.map(({ ledger }) => ledger.balances()));
    const [was, is] = [before[0], after[0]];
    if (was === undefined || is === undefined) throw new Error("the fleet has nodes");
    const earned = after.reduce((sum, each, n) => sum + each.provider - (before[n]?.provider ?? 0n), 0n);
    expect({
      consumer: is.consumer - was.consumer,
      earned: earned + is.fee_recipient - was.fee_recipient,
      escrow: is.escrow - was.escrow,
    }).toEqual({ consumer: -prices, earned: prices, escrow: 0n });
    for (const [n, each] of after.entries()) expect(each.provider).toBeGreaterThan(before[n]?.provider ?? 0n);
    await until(async () => (await free()).every((gpus) => gpus === 4), "all GPUs are free again");
    await until(async () => {
      const { data } = await client.offers.prices();
      const sold = data.flatMap(({ settled }) => settled.firm ?? []);
      return sold.length > 0 && sold.every(({ median }) => median > 0n);
    }, "what the chain settled is in the price index");
  });

  it("ORD-2 a fourth node that declines releases the other three, and the next order has them at once", async () => {
    // It is listed and online, and its agent takes no fee: only asking it shows that.
    await fleet.join({ max_fee_bps: 0 });
    const refused = await conflict({ ...wanted, nodes: 4, durationS: 7_200 });
    expect(refused).toMatchObject({
      code: "no_capacity",
      problem: { wait: { found: 3, wanted: 4, blockers: { gpus: 1 } } },
    });
    const order = await client.leases.order({ ...wanted, durationS: 7_200 });
    expect(order).toMatchObject({ status: "open" });
    await until(async () => {
      const { leases } = await client.leases.getOrder(order.id);
      return leases.every(({ status }) => status === "active");
    }, "the second order is open");
    // Its nodes are taken now, so that a third one finds too few.
    expect(await conflict(wanted)).toMatchObject({ code: "no_capacity", problem: { wait: { wanted: 3 } } });
    await closed(order);
  });
});
