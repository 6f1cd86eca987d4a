import { KeptIntent } from "@gpux/protocol/kept";
import { expect, it } from "vitest";
import { type ClientOptions, createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import { consumer } from "./testing/market.ts";
import { createScriptedEdge } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

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
