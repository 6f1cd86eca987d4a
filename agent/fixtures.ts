import { canonicalJson } from "@gpux/protocol/canonical";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { Address, type Bytes32, type JobId, jobIdOf, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import type { Gpu, Offer } from "@gpux/protocol/resources";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { privateKeyToAccount } from "viem/accounts";
import { keccak256, stringToBytes } from "viem/utils";
import { AgentConfig } from "./config.ts";
import type { House } from "./control/admission.ts";
import type { Credentials } from "./link/credentials.ts";
import { createEdgeClock } from "./link/edge-clock.ts";

/** A provider's house and a lease with it, for tests alone: nothing of value hangs on these keys. */

const byte = (hex: string): Address => Address.parse(`0x${hex.repeat(20)}`);

export const node = privateKeyToAccount(`0x${"a1".repeat(32)}`);
export const consumer = privateKeyToAccount(`0x${"c1".repeat(32)}`);
export const meter = privateKeyToAccount(`0x${"3e".repeat(32)}`);
export const place = { chainId: 31_337, escrow: byte("e5") };
export const hasher = createHasher(place);
/** How the node signs its requests, by a clock that is right. */
export const credentials: Credentials = {
  account: node,
  chainId: place.chainId,
  clock: createEdgeClock(() => undefined),
};
export const NODE = Address.parse(node.address);
export const NOW_S = 1_800_000_000;

export function configWith(change: Partial<Record<keyof AgentConfig, unknown>> = {}): AgentConfig {
  return AgentConfig.parse({
    edge: "http://127.0.0.1:9",
    rpc: "http://127.0.0.1:9",
    chain_id: place.chainId,
    escrow: place.escrow,
    payout: byte("aa"),
    prices: { gpu_hour: "3.60", core_hour: "0.01", gb_hour: "0" },
    region: "local",
    drain_s: 5,
    ...change,
  });
}

/** As the agent sees the software device. */
export const card: Gpu = {
  model: "SWIFTSHADER",
  reported: "SwiftShader driver-5.0.0",
  vram_mb: 0,
  driver: "swiftshader",
  backend: "vulkan",
  software: true,
};

export const offer: Offer = {
  gpus: [card],
  cpu: 8,
  memory_gb: 16,
  region: "local",
  prices: configWith().prices,
  concurrency: 1,
  yieldable: null,
  gpus_per_lease: 64,
  duration_s: { min: 0, max: 604_800 },
  features: ["webgpu"],
  isolation: "process",
  models: [],
  start_price: 0n,
};

export const house: House = { config: configWith(), offer, address: NODE, hasher };

/** What an edge would sell of it. */
export function textWith(change: Partial<QuoteText> = {}): QuoteText {
  return {
    node: NODE,
    gpus: [card],
    resources: { gpus: 1, cpu: 0, memory_gb: 0 },
    prices: { gpu_hour: "3600000", core_hour: "10000", gb_hour: "0" },
    tier: "firm",
    mode: "serverless",
    region: "local",
    tick_s: 60,
    salt: `0x${"05".repeat(32)}`,
    ...change,
  };
}

export function quoteHash(text: QuoteText): Bytes32 {
  return keccak256(stringToBytes(canonicalJson(text)));
}

/** `ratePerHour` 3.60 USDC: one base unit per millisecond. */
export function termsWith(change: Partial<LeaseTerms> = {}): LeaseTerms {
  return {
    payer: byte("ca"),
    consumerSigner: Address.parse(consumer.address),
    provider: byte("aa"),
    providerSigner: NODE,
    meter: Address.parse(meter.address),
    feeRecipient: byte("fe"),
    feeBps: 500,
    upfront: 0n,
    unattended: 0n,
    ratePerHour: 3_600_000n,
    expiry: NOW_S + 3_600,
    quote: quoteHash(textWith()),
    ...change,
  };
}

export function leaseOf(terms: LeaseTerms): { id: LeaseId; hash: Bytes32 } {
  const hash = hasher.leaseTerms(terms);
  return { id: leaseIdOf(hash), hash };
}

export function jobOf(lease: LeaseId, n: number): JobId {
  return jobIdOf(
    lease,
    Uint8Array.from({ length: 16 }, (_, i) => (i === 15 ? n : 7)),
  );
}
