import { devnetAccount } from "@gpux/contracts/roles";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Bytes32 } from "@gpux/protocol/ids";
import type { LeaseView } from "@gpux/protocol/lease";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import type { Client } from "@gpux/sdk";
import { createPublicClient, createWalletClient, http, parseEther } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Market, openMarket, publish, scene, until } from "./testing/market.ts";

const FUNDING = 60_000_000n;
const ZERO = Bytes32.parse(`0x${"00".repeat(32)}`);

/** A job that runs into its price: worth the relayer's keeping its voucher, not worth landing it unasked. */
const GPU_HOUR = "7200";
const PRICE = 2_000_000n;

describe("a payer who leaves on chain, past the market", () => {
  let market: Market;
  let client: Client;
  let lease: LeaseView;

  beforeAll(async () => {
    market = await openMarket({ gpuHour: GPU_HOUR });
    client = market.client();
  });
  afterAll(() => market?.stop());

  const onChain = async () => {
    const [funded, paid] = await createPublicClient({ transport: http(market.devnet.url) }).readContract({
      address: market.devnet.escrow,
      abi: leaseEscrowAbi,
      functionName: "leases",
      args: [lease.lease_hash],
    });
    return { funded, paid };
  };

  it("LSE-3 LSE-8 first funds so much that edge and agent wait for a safe block, then has work done and adds to it", async () => {
    const quote = await client.quotes.create({ amount: FUNDING });
    lease = await client.leases.open(quote, { amount: FUNDING });
    const job = await client.jobs.run({
      function: await publish(client, "pathtrace"),
      inputs: scene({ width: 512, height: 512, samples: 4_096 }),
      max_price: PRICE,
      lease: lease.id,
    });
    expect(job).toMatchObject({ status: "timed_out", error: { code: "execution_timeout" } });
    expect(job.price).toBeGreaterThan(PRICE / 2n);
    expect(job.price).toBeLessThanOrEqual(PRICE);
    lease = await client.leases.topUp(lease.id, 1_000_000n);
    const tooMuch = client.leases.topUp(lease.id, 1_000_000_000n);
    await expect(tooMuch).rejects.toMatchObject({ code: "insufficient_funds" });
    await until(
      async () => (await client.leases.get(lease.id)).voucher?.meter_signature != null,
      "it is vouched",
    );
    expect(await onChain()).toEqual({ funded: FUNDING + 1_000_000n, paid: 0n });
  });

  it("LSE-7 RLY-10 leaves what was used to the provider: the relayer lands the voucher that it held", async () => {
    const { devnet } = market;
    const { voucher, terms } = await client.leases.get(lease.id);
    const hasher = createHasher({ chainId: devnet.chainId, escrow: devnet.escrow });
    const signature = await devnetAccount("consumer").account.sign({
      hash: hasher.exit({ leaseId: hasher.leaseTerms(terms) }),
    });
    // Anybody may carry it; nothing of ours does.
    const stranger = privateKeyToAccount(generatePrivateKey());
    await devnet.fundEth(stranger.address, parseEther("1"));
    await createWalletClient({ account: stranger, transport: http(devnet.url) }).writeContract({
      chain: null,
      address: devnet.escrow,
      abi: leaseEscrowAbi,
      functionName: "requestExit",
      args: [terms, signature, { r: ZERO, vs: ZERO }],
    });
    await until(async () => (await onChain()).paid > 0n, "the held voucher is settled");
    expect((await onChain()).paid).toBe(voucher?.cumulative);
  });
});
