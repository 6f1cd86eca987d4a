import { canonicalJson } from "@gpux/protocol/canonical";
import { digest, escrowDomain, LeaseTerms, leaseIdHash, Receipt } from "@gpux/protocol/eip712";
import { leaseIdOf } from "@gpux/protocol/ids";
import { Quote, type QuoteText, type Settlement } from "@gpux/protocol/lease";
import { append, emptyFrontier, proof, root } from "@gpux/protocol/merkle";
import { privateKeyToAccount } from "viem/accounts";
import { keccak256, stringToBytes } from "viem/utils";

/** The parties of the SDK's and the CLI's tests; nothing of value hangs on these keys. */
export const consumer = privateKeyToAccount(`0x${"c0".repeat(32)}`);
export const provider = privateKeyToAccount(`0x${"a1".repeat(32)}`);
export const meter = privateKeyToAccount(`0x${"ee".repeat(32)}`);

export const settlement: Settlement = {
  chain_id: 31_337,
  escrow: `0x${"e5".repeat(20)}`,
  token: `0x${"70".repeat(20)}`,
  token_name: "USD Coin",
  token_version: "2",
};
export const domain = escrowDomain({ chainId: settlement.chain_id, escrow: settlement.escrow });
export const wellKnown = {
  origin: "https://edge.test",
  settlement,
  meter: lower(meter.address),
  fee_recipient: `0x${"fe".repeat(20)}` as const,
  fee_bps: 500,
};

export function lower(address: `0x${string}`): `0x${string}` {
  return `0x${address.slice(2).toLowerCase()}`;
}

/** An honest edge's quote at `now` (ms) for one GPU, with anything in it replaced before (or, `after`, once) it is hashed. */
export function quoteAt(
  now: number,
  change: { terms?: Partial<LeaseTerms>; text?: Partial<QuoteText>; after?: Partial<Quote> } = {},
): Quote {
  const text: QuoteText = {
    node: lower(provider.address),
    gpus: [
      {
        model: "SWIFTSHADER",
        reported: "SwiftShader",
        vram_mb: 1024,
        driver: "",
        backend: "vulkan",
        software: true,
      },
    ],
    resources: { gpus: 1, cpu: 0, memory_gb: 0 },
    prices: { gpu_hour: "3600000", core_hour: "0", gb_hour: "0" },
    tier: "firm",
    mode: "serverless",
    region: "local",
    tick_s: 60,
    keep_warm_s: 300,
    salt: `0x${"5a".repeat(32)}`,
    ...change.text,
  };
  const terms: LeaseTerms = {
    payer: lower(consumer.address),
    consumerSigner: lower(consumer.address),
    provider: `0x${"9a".repeat(20)}`,
    providerSigner: lower(provider.address),
    meter: wellKnown.meter,
    feeRecipient: wellKnown.fee_recipient,
    feeBps: wellKnown.fee_bps,
    upfront: 60_000n,
    unattended: 0n,
    ratePerHour: 3_600_000n,
    expiry: Math.floor(now / 1_000) + 3_600,
    quote: keccak256(stringToBytes(canonicalJson(text))),
    ...change.terms,
  };
  const hash = leaseIdHash(domain, terms);
  return {
    id: `qte_${"q".repeat(32)}`,
    object: "quote",
    firm: true,
    lease_id: leaseIdOf(hash),
    lease_hash: hash,
    terms,
    text,
    verified: false,
    amount: 900_000n,
    expires_at: new Date(now + 30_000).toISOString(),
    settlement,
    ...change.after,
  };
}

/** A lease's first receipt in wire form, with the usage that covers it and another, signed by both. */
export async function signedReceipt(receipt: Receipt) {
  const leaf = digest(domain, "Receipt", receipt);
  const leaves = [leaf, keccak256(leaf)];
  const evidence = root(leaves.reduce(append, emptyFrontier()));
  const usage = { cumulative: receipt.cumulative + 5n, evidence };
  const hash = digest(domain, "Usage", { leaseId: receipt.leaseId, ...usage });
  return {
    receipt: Receipt.encode(receipt),
    usage: { cumulative: usage.cumulative.toString(), evidence, size: leaves.length },
    proof: proof(leaves, 0),
    provider_signature: await provider.sign({ hash }),
    edge_signature: await meter.sign({ hash }),
  };
}

export const wire = {
  quote: (quote: Quote) => Quote.encode(quote),
  terms: (terms: LeaseTerms) => LeaseTerms.encode(terms),
};
