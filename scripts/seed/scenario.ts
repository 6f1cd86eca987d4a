import type { Devnet } from "@gpux/contracts/devnet";
import { DEVNET_MNEMONIC, devnetAccount } from "@gpux/contracts/roles";
import { type LeaseTerms, tokenTypes, types } from "@gpux/protocol/eip712";
import { Address } from "@gpux/protocol/ids";
import { toCompact } from "@gpux/protocol/signature";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { keccak256, stringToBytes, toHex } from "viem";
import { type HDAccount, mnemonicToAccount, privateKeyToAccount } from "viem/accounts";

/**
 * The example that GPUX was proposed with: a consumer takes 3 nodes with 32 cores, 128 GB and 4 GPUs each for three
 * hours, tops up for three more, ends early and is refunded by each provider. Dedicated leases: the clock bills, so
 * `unattended` is everything and no allowance is needed.
 */

const HOUR = 3_600;
const MAX_UINT88 = (1n << 88n) - 1n;

/** USDC base units an hour and node: 4 GPUs at 0.30, 32 cores at 0.005, 128 GB at 0.001. */
export const RATE_PER_HOUR = 4n * 300_000n + 32n * 5_000n + 128n * 1_000n;
export const DEPOSIT = 3n * RATE_PER_HOUR;
export const TOP_UP = 3n * RATE_PER_HOUR;
/** It ends after four of the six paid hours. */
export const USED_HOURS = 4;
export const USED = BigInt(USED_HOURS) * RATE_PER_HOUR;
export const FEE_BPS = 500;
export const NODES = 3;

export interface Node {
  readonly payout: HDAccount;
  readonly agent: ReturnType<typeof privateKeyToAccount>;
  /** The agent's. */
  readonly key: `0x${string}`;
}

/**
 * Nodes of so many owners, one each if not told. Payout accounts hold no ETH, as everybody's but the relayer's; their
 * keys are the devnet mnemonic's from index 20.
 */
export function nodesOf(count: number, owners = count): Node[] {
  return Array.from({ length: count }, (_, n) => {
    const payout = mnemonicToAccount(DEVNET_MNEMONIC, { addressIndex: 20 + (n % owners) });
    const key = keccak256(stringToBytes(`seed example agent ${n}`));
    return { payout, key, agent: privateKeyToAccount(key) };
  });
}

export const consumer = devnetAccount("consumer");
const consumerSigner = devnetAccount("consumerSigner");
export const feeRecipient = devnetAccount("feeRecipient").address;

/** A node and the terms on which the consumer has it. */
export interface Rented {
  readonly node: Node;
  readonly terms: LeaseTerms;
}

/** One lease per node; `now` in seconds. */
export function leasesOf(nodes: readonly Node[], now: number, feeBps = FEE_BPS): Rented[] {
  return nodes.map((node, n) => ({
    node,
    terms: {
      payer: consumer.address,
      consumerSigner: consumerSigner.address,
      provider: Address.parse(node.payout.address),
      providerSigner: Address.parse(node.agent.address),
      meter: devnetAccount("meter").address,
      feeRecipient,
      feeBps,
      upfront: 0n,
      unattended: MAX_UINT88,
      ratePerHour: RATE_PER_HOUR,
      expiry: now + 24 * HOUR,
      quote: keccak256(stringToBytes(`${nodes.length} x {32 cores, 128 GB, 4 GPUs}, node ${n}`)),
    },
  }));
}

export type Devchain = Pick<Devnet, "chainId" | "escrow" | "usdc">;

/** The consumer's one wallet prompt for any number of leases: EIP-3009 over the hash of the plan. */
export async function authorize(
  chain: Devchain,
  terms: readonly LeaseTerms[],
  amount: bigint,
  now: number,
  occasion: string,
) {
  const hasher = createHasher(chain);
  const salt = keccak256(stringToBytes(occasion));
  const validBefore = BigInt(now + 24 * HOUR);
  const amounts = terms.map(() => amount);
  const signature = await consumer.account.signTypedData({
    domain: { name: "USD Coin", version: "2", chainId: chain.chainId, verifyingContract: chain.usdc },
    types: tokenTypes,
    primaryType: "ReceiveWithAuthorization",
    message: {
      from: consumer.address,
      to: chain.escrow,
      value: amount * BigInt(terms.length),
      validAfter: 0n,
      validBefore,
      nonce: hasher.fundingNonce({ leaseIds: terms.map((each) => hasher.leaseTerms(each)), amounts, salt }),
    },
  });
  return { amounts, auth: { from: consumer.address, salt, validAfter: 0n, validBefore, signature } };
}

const EVIDENCE = toHex(0, { size: 32 });

/** Consumer and provider sign the final usage; neither needs the meter. */
export async function signClose(chain: Devchain, terms: LeaseTerms, node: Node, now: number) {
  const validBefore = now + 24 * HOUR;
  const message = {
    leaseId: createHasher(chain).leaseTerms(terms),
    cumulative: USED,
    evidence: EVIDENCE,
    validBefore,
  };
  const typed = {
    domain: {
      name: "GPUX Lease Escrow",
      version: "1",
      chainId: chain.chainId,
      verifyingContract: chain.escrow,
    },
    types,
    primaryType: "Close",
    message,
  } as const;
  const [a, b] = await Promise.all([
    consumerSigner.account.signTypedData(typed),
    node.agent.signTypedData(typed),
  ]);
  const compact = (signature: string) => {
    const parts = toCompact(signature);
    if (parts === null) throw new Error("viem signs low-s");
    return parts;
  };
  return { evidence: EVIDENCE, validBefore, pair: { roles: 3, a: compact(a), b: compact(b) } };
}
