import { Address, leaseIdOf } from "@gpux/protocol/ids";
import { expect, test } from "vitest";
import { NOTICE_S, replayed, tell } from "./allocation.ts";
import { type Allocation, type NodeState, unknownNode } from "./state.ts";

const lease = leaseIdOf(`0x${"01".repeat(32)}`);
const address = Address.parse(`0x${"aa".repeat(20)}`);

const allocation: Allocation = {
  phase: "open",
  terms: {
    payer: address,
    consumerSigner: address,
    provider: address,
    providerSigner: address,
    meter: address,
    feeRecipient: address,
    feeBps: 0,
    upfront: 0n,
    unattended: 0n,
    ratePerHour: 0n,
    expiry: 3_600,
    quote: `0x${"02".repeat(32)}`,
  },
  until: 3_600_000,
  tier: "yieldable",
  yielding: true,
  yieldAt: 40_000,
  notBefore: 0,
  turn: 0,
  gpus: [],
  resources: { gpus: 1, cpu: 0, memory_gb: 0 },
};

/** A node that was told at 10 s to have its lease give way, and has not said that it heard. */
function untold(): NodeState {
  const state = { ...unknownNode(address), allocations: new Map([[lease, allocation]]) };
  const first = tell(state, { t: "dial", lease });
  const told = first.ok ? tell(first.next, { t: "yield", lease, notice_s: NOTICE_S }) : first;
  if (!told.ok) throw new Error(told.code);
  return told.next;
}

test.each([
  { at: 10_000, left: 30 },
  { at: 25_500, left: 15 },
  { at: 400_000, left: 0 },
])("LSE-11 a notice that is said again at $at says what is left of it", ({ at, left }) => {
  expect(replayed(untold(), at)).toMatchObject([{ t: "dial" }, { t: "yield", notice_s: left }]);
});

test("LSE-11 of a lease that is gone meanwhile nothing is left", () => {
  expect(replayed({ ...untold(), allocations: new Map() }, 10_000)).toMatchObject([{}, { notice_s: 0 }]);
});
