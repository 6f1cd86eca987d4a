import type { DevnetFacts } from "@gpux/contracts/devnet-client";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import type { Address } from "@gpux/protocol/ids";
import type { RelayedTransaction } from "@gpux/protocol/intent";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { createPublicClient, http, type PublicClient } from "viem";
import { z } from "zod";
import { CLOSED, FEE_BPS, FUNDED, type SignedLease } from "./signed-lease.ts";

function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

const sum = (amounts: readonly bigint[]) => amounts.reduce((a, b) => a + b, 0n);

/** Nothing lost: every lease has ended as signed, and everybody holds to the base unit what is theirs. */
async function auditMoney(client: PublicClient, facts: DevnetFacts, leases: readonly SignedLease[]) {
  const hasher = createHasher({ chainId: facts.chainId, escrow: facts.escrow });
  const held = (of: Address) =>
    client.readContract({ address: facts.usdc, abi: usdcAbi, functionName: "balanceOf", args: [of] });
  const fee = (CLOSED * BigInt(FEE_BPS)) / 10_000n;
  for (const { terms } of leases) {
    const id = hasher.leaseTerms(terms);
    const [funded, paid, , , status] = await client.readContract({
      address: facts.escrow,
      abi: leaseEscrowAbi,
      functionName: "leases",
      args: [id],
    });
    must(funded === FUNDED && paid === CLOSED && status === 4, `${id}: ${funded} ${paid} ${status}`);
    const balances = await Promise.all([terms.provider, terms.feeRecipient, terms.payer].map(held));
    const expected = [CLOSED - fee, fee, FUNDED - CLOSED];
    must(balances.join() === expected.join(), `${id}: ${balances} where ${expected} was due`);
  }
  must((await held(facts.escrow)) === 0n, "the escrow keeps money that is nobody's");
}

/** Nothing twice: of each lease and account the chain has each event once. */
async function auditEvents(client: PublicClient, facts: DevnetFacts, leases: readonly SignedLease[]) {
  const logs = await client.getContractEvents({ address: facts.escrow, abi: leaseEscrowAbi, fromBlock: 0n });
  const seen = new Set<string>();
  const count = { LeaseFunded: 0, LeaseClosed: 0, Withdrawn: 0 };
  for (const { eventName, args } of logs) {
    const name = JSON.stringify([eventName, args], (_key, value: unknown) =>
      typeof value === "bigint" ? value.toString() : value,
    );
    must(!seen.has(name), `twice: ${name}`);
    seen.add(name);
    if (eventName === "LeaseFunded" || eventName === "LeaseClosed" || eventName === "Withdrawn")
      count[eventName] += 1;
  }
  const expected = {
    LeaseFunded: leases.length,
    LeaseClosed: leases.length,
    Withdrawn: 3 * leases.length,
  };
  must(
    JSON.stringify(count) === JSON.stringify(expected),
    `events on chain: ${JSON.stringify(count)}, expected: ${JSON.stringify(expected)}`,
  );
}

const Fees = z.looseObject({ gasUsed: z.string(), effectiveGasPrice: z.string(), l1Fee: z.string() });

/** Every nonce of ours is on record, and the record, the receipts and the balances agree to the wei. */
async function auditGas(
  client: PublicClient,
  keys: readonly Address[],
  endowed: bigint,
  record: readonly RelayedTransaction[],
) {
  for (const address of keys) {
    const count = await client.getTransactionCount({ address });
    const nonces = record.filter(({ from }) => from === address).map(({ nonce }) => nonce);
    const each = nonces.toSorted((a, b) => a - b).every((nonce, index) => nonce === index);
    must(each && nonces.length === count, `${address} used ${count} nonces; on record are ${nonces}`);
  }
  const wei = ({ gasUsed, effectiveGasPrice, l1Fee }: z.infer<typeof Fees>) =>
    BigInt(gasUsed) * BigInt(effectiveGasPrice) + BigInt(l1Fee);
  const receipts = await Promise.all(
    record.map(({ hash }) => client.request({ method: "eth_getTransactionReceipt", params: [hash] })),
  );
  const spent = sum(receipts.map((receipt) => wei(Fees.parse(receipt))));
  const recorded = sum(record.map(({ cost }) => wei(cost)));
  const left = sum(await Promise.all(keys.map((address) => client.getBalance({ address }))));
  must(recorded === spent, `on record are ${recorded} wei, the receipts say ${spent}`);
  must(endowed - left === spent, `${endowed - left} wei are gone, the receipts say ${spent}`);
  return spent;
}

/**
 * Holds the chain to every base unit and every wei, and answers the wei spent.
 * @throws an error that says what does not add up.
 */
export async function audit(
  facts: DevnetFacts,
  leases: readonly SignedLease[],
  keys: readonly Address[],
  endowed: bigint,
  record: readonly RelayedTransaction[],
): Promise<bigint> {
  const client = createPublicClient({ transport: http(facts.url), cacheTime: 0 });
  await auditMoney(client, facts, leases);
  await auditEvents(client, facts, leases);
  return await auditGas(client, keys, endowed, record);
}
