import { KeptIntent } from "@gpux/protocol/kept";
import { expect, it } from "vitest";
import { z } from "zod";
import { type ClientOptions, createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import { consumer } from "./testing/market.ts";
import { createScriptedEdge } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

const TopUpWire = z.object({
  auto_top_up: z.object({ below: z.string(), allocations: z.array(z.object({ funded_to: z.string() })) }),
});
const request = { function: "ab".repeat(32), inputs: { n: { number: 8 } }, max_price: 50_000n };

/** `signed`: what the account was asked to sign, in order. */
function setUp(options: Partial<ClientOptions> = {}) {
  const { timing } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const signed: unknown[] = [];
  const kept: KeptIntent[] = [];
  const client = createClient({
    url: "https://edge.test",
    account: {
      ...consumer,
      signTypedData: (typedData) => {
        signed.push(typedData.primaryType);
        return consumer.signTypedData(typedData);
      },
    },
    autoOpen: { maxAmount: 1_000_000n },
    fetch: edge.fetch,
    timing,
    keep: (funding) => void kept.push(KeptIntent.parse(funding)),
    ...options,
  });
  return { client, edge, signed, kept };
}

it("deposits by one signature, and shows what the credit holds", async () => {
  const { client, signed } = setUp();
  const { result } = await client.credit.deposit(2_000_000n);
  expect(result).toMatchObject({ kind: "deposit", amount: "2000000" });
  expect(await client.credit.balance()).toMatchObject({ balance: 2_000_000n });
  expect(signed).toEqual(["ReceiveWithAuthorization"]);
});

it("CRD-5 opens a lease for a job from credit where it suffices, and else from the wallet", async () => {
  const rich = setUp();
  rich.edge.credit = 2_000_000n;
  await rich.client.jobs.create(request, { wait: 5 });
  expect(rich.signed).toEqual(["Allocate", "Allowance"]);
  expect(rich.edge).toMatchObject({ credit: 1_100_000n, lease: { amount: 900_000n } });
  // With no more than terms it gets the rest back without us.
  expect(rich.kept).toMatchObject([{ intent: { kind: "reclaim", terms: rich.edge.quote.terms } }]);

  const poor = setUp();
  poor.edge.credit = 899_999n;
  await poor.client.jobs.create(request, { wait: 5 });
  expect(poor.signed).toEqual(["ReceiveWithAuthorization", "Allowance"]);
  expect(poor.edge.credit).toBe(899_999n);
});

it("asks no wallet where only credit may pay, and no credit where only the wallet may", async () => {
  const credit = setUp({ autoOpen: { maxAmount: 1_000_000n, payFrom: "credit" } });
  const refused = await credit.client.jobs.create(request).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(GpuxError);
  expect(refused).toMatchObject({ code: "insufficient_credit" });
  expect(credit.signed).toEqual(["Allocate"]);

  const wallet = setUp({ autoOpen: { maxAmount: 1_000_000n, payFrom: "wallet" } });
  wallet.edge.credit = 2_000_000n;
  await wallet.client.jobs.create(request, { wait: 5 });
  expect(wallet.signed).toEqual(["ReceiveWithAuthorization", "Allowance"]);
});

it("CRD-3 raises a lease from credit to what it has and as much more", async () => {
  const { client, edge, signed } = setUp();
  edge.credit = 2_000_000n;
  await client.jobs.create(request, { wait: 5 });
  const { funded } = await client.leases.topUp(edge.quote.lease_id, 300_000n, { payFrom: "credit" });
  expect(funded).toBe(1_200_000n);
  expect(signed.at(-1)).toBe("Allocate");
});

it("CRD-6 signs the raises that a lease may make by itself, up to the limit and no further", async () => {
  const { client, edge, signed } = setUp();
  edge.credit = 9_000_000n;
  await client.jobs.create(request, { wait: 5 });
  signed.length = 0;
  const id = edge.quote.lease_id;
  await client.leases.autoTopUp(id, { below: 100_000n, amount: 500_000n, limit: 2_000_000n });
  const { auto_top_up } = TopUpWire.parse(JSON.parse(edge.seen.at(-1)?.body ?? ""));
  expect(auto_top_up.below).toBe("100000");
  expect(auto_top_up.allocations.map(({ funded_to }) => funded_to)).toEqual([
    "1400000",
    "1900000",
    "2000000",
  ]);
  expect(signed).toEqual(["Allocate", "Allocate", "Allocate"]);
  for (const limit of [900_000n, 90_000_000n])
    await expect(client.leases.autoTopUp(id, { below: 1n, amount: 500_000n, limit })).rejects.toMatchObject({
      code: "request_invalid",
    });
  await client.leases.autoTopUp(id, null);
  expect(JSON.parse(edge.seen.at(-1)?.body ?? "")).toEqual({ auto_top_up: null });
});
