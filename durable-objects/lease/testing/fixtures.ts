import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { FromLease } from "@gpux/protocol/frames";
import { fundingKey } from "@gpux/protocol/funding";
import { type Address, type JobId, jobIdOf, leaseIdOf } from "@gpux/protocol/ids";
import type { IntentDone, IntentResult } from "@gpux/protocol/intent";
import { JobRequest } from "@gpux/protocol/job";
import type { HoldRequest } from "../../interfaces.ts";
import { hasherOf } from "../billing.ts";
import type { Event } from "../machine.ts";
import type { State } from "../state.ts";

/** What the tests of the lease start from: one lease, funded with 10 USDC at 3.60 USDC an hour (1,000 units a second). */

export const START = 1_800_000_000_000;
export const PLACE = { chainId: 31_337, escrow: address(0xe5) };
export const NODE_KEY = `0x${"22".repeat(32)}` as const;
export const CONSUMER_KEY = `0x${"33".repeat(32)}` as const;
export const FUNDED = 10_000_000n;

export function address(byte: number): Address {
  return `0x${byte.toString(16).padStart(2, "0").repeat(20)}`;
}

export function termsOf(overrides: Partial<LeaseTerms> = {}): LeaseTerms {
  return {
    payer: address(0xa1),
    consumerSigner: address(0xa2),
    provider: address(0xb1),
    providerSigner: address(0xb2),
    meter: address(0xc1),
    feeRecipient: address(0xf1),
    feeBps: 500,
    upfront: 60_000n,
    unattended: 0n,
    ratePerHour: 3_600_000n,
    expiry: START / 1_000 + 3_600,
    quote: `0x${"07".repeat(32)}`,
    ...overrides,
  };
}

export function holdOf(terms: LeaseTerms): HoldRequest {
  return {
    lease: leaseIdOf(hasherOf(PLACE).leaseTerms(terms)),
    terms,
    text: {
      node: terms.providerSigner,
      gpus: [
        {
          model: "SWIFTSHADER",
          reported: "SwiftShader",
          vram_mb: 0,
          driver: "5.0",
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
      salt: `0x${"05".repeat(32)}`,
    },
    expiresAt: START + 30_000,
  };
}

export function done(kind: IntentResult["kind"], result: IntentResult): IntentDone {
  return {
    status: "done",
    key: `${kind}:x`,
    superseded: false,
    txHash: `0x${"0a".repeat(32)}`,
    blockNumber: 1,
    blockHash: `0x${"0b".repeat(32)}`,
    blockTimestamp: START / 1_000,
    result,
    confirmation: "included",
    enough: true,
    cost: { gasUsed: "1", effectiveGasPrice: "1", l1Fee: "1", calldataBytes: 1 },
  };
}

export const FUND = {
  t: "fund",
  funding: {
    amount: FUNDED,
    salt: `0x${"01".repeat(32)}`,
    valid_after: 0,
    valid_before: START / 1_000 + 600,
    signature: "0x00",
  },
} as const satisfies Event;

export function funded(state: State): Extract<Event, { t: "relayed" }> {
  const leases = [{ leaseId: state.lease.hash, funded: FUNDED.toString(), openedAt: START / 1_000 }];
  const { funding } = state.lease;
  const key = funding === null ? FUND.funding.salt : fundingKey(funding);
  return { t: "relayed", kind: "fund", funding: key, answer: done("fund", { kind: "fund", leases }) };
}

export function jobId(state: State, n: number): JobId {
  return jobIdOf(
    state.lease.id,
    Uint8Array.from({ length: 16 }, () => n),
  );
}

export const ALLOWANCE = { cumulative: FUNDED, signature: "0x00" } as const;

export function submission(
  state: State,
  n: number,
  overrides: Partial<JobRequest> = {},
): Extract<Event, { t: "submit" }> {
  const request = JobRequest.parse({
    function: "f".repeat(64),
    inputs: { n: { number: n } },
    max_price: "100000",
  });
  return {
    t: "submit",
    job: jobId(state, n),
    clientId: null,
    request: { ...request, allowance: ALLOWANCE, ...overrides },
    inputHash: n.toString(16).padStart(64, "0"),
  };
}

type Body<F> = F extends FromLease ? Omit<F, "v" | "ack"> : never;

export function said(frame: Body<FromLease>): Event {
  return { t: "frame", frame: { ...frame, v: 1, ack: 0 } };
}

export const HELLO: Event = said({ t: "hello", seq: 0, attempts: [], last_seq: 0 });
