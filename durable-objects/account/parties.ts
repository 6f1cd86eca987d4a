import { type AllocationRefusal, AllocationRequest } from "@gpux/protocol/attestation";
import type { ErrorCode } from "@gpux/protocol/errors";
import { isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import type { Address, LeaseId } from "@gpux/protocol/ids";
import { Intent, type IntentRefusalCode } from "@gpux/protocol/intent";
import { type OrderAuthorization, orderAmounts } from "@gpux/protocol/order";
import { z } from "zod";
import type { ObjectEnv } from "../bindings.ts";
import type { BookEntry } from "../interfaces.ts";
import { keptLegs, type OrderState } from "./order.ts";
import type { Candidate, Market, Parties } from "./ordering.ts";
import type { Wanted } from "./quote.ts";
import { hold, offer } from "./quoting.ts";

interface Listed extends Candidate {
  readonly entry: BookEntry;
}

/** The nodes of the market, as `by` may ask them to hold what is wanted. */
export function marketOf(env: ObjectEnv, by: Address, wanted: Wanted): Market<Listed> {
  return {
    async offer({ entry }) {
      const offered = await offer(env, by, wanted, entry);
      if (!offered.ok) return offered;
      const { draft, amount } = offered;
      return { ok: true, leg: { ...draft, amount } };
    },
    hold: ({ hold: request, amount }) => hold(env, { draft: { hold: request }, amount }),
  };
}

/** Who carries out an order's duties: its leases and nodes, and the relayer. */
export function partiesOf(env: ObjectEnv): Parties {
  const leaseOf = (lease: LeaseId) => env.LEASE.getByName(lease);
  return {
    async free({ hold: { lease, terms } }) {
      await leaseOf(lease).letGo();
      await env.NODE.getByName(terms.providerSigner).release(lease);
    },
    reserve: ({ hold: { lease } }, funding) => leaseOf(lease).reserve(funding.valid_before),
    async submit(state, funding) {
      const intent = await intentOf(env, state, funding);
      if ("ok" in intent) return { ok: false, code: fundingRefusal(intent.code), detail: intent.detail };
      const answer = await env.RELAYER.submit(z.encode(Intent, intent));
      if (answer.status !== "rejected") return { ok: true };
      return { ok: false, code: fundingRefusal(answer.code), detail: answer.detail };
    },
    async tell(leg, state, funding) {
      const amounts = [...orderAmounts(funding)];
      const legs = keptLegs(state);
      const index = legs.findIndex(({ hold: { lease } }) => lease === leg.hold.lease);
      const lease = leaseOf(leg.hold.lease);
      // It may have lapsed and been forgotten while this account was down; its money may be on chain all the same.
      await lease.quote({ ...leg.hold, amount: leg.amount });
      const amount = amounts[index] ?? leg.amount;
      const plan = { order: state.id, index, terms: legs.map(({ hold: { terms } }) => terms), amounts };
      const told = await lease.fund(shareOf(funding, amount), plan);
      // A refusal of the chain's is the lease's to show; any other would be a bug of ours.
      if (!told.ok && !CHAIN_REFUSALS.has(told.code))
        throw new Error(`${leg.hold.lease} does not take its funding: ${told.code}`);
    },
  };
}

const CHAIN_REFUSALS: ReadonlySet<ErrorCode> = new Set([
  "insufficient_funds",
  "insufficient_credit",
  "funding_invalid",
]);

/** One intent for all leases: the chain takes it whole or not at all. From credit the meter signs its half first. */
async function intentOf(
  env: ObjectEnv,
  state: OrderState,
  funding: OrderAuthorization,
): Promise<Intent | AllocationRefusal> {
  const legs = keptLegs(state);
  const [first] = legs;
  if (first === undefined) throw new Error("an order without leases is funded");
  const terms = legs.map(({ hold }) => hold.terms);
  const { signature, valid_before: validBefore } = funding;
  if (isFromCredit(funding)) {
    const request = { terms, fundedTo: funding.funded_to, validBefore, signature };
    const cosigned = await env.METER.allocate(z.encode(AllocationRequest, request));
    return cosigned.ok
      ? { kind: "allocate", ...request, meterSignature: cosigned.signature }
      : structuredClone(cosigned);
  }
  const { amounts, salt, valid_after: validAfter } = funding;
  const from = first.hold.terms.payer;
  return { kind: "fund", from, terms, amounts, salt, validAfter, validBefore, signature };
}

/** What one of its leases keeps of an order's funding. */
function shareOf(funding: OrderAuthorization, amount: bigint): LeaseFunding {
  if (isFromCredit(funding)) return { ...funding, funded_to: amount };
  const { amounts: _, ...authorization } = funding;
  return { ...authorization, amount };
}

function fundingRefusal(code: IntentRefusalCode) {
  if (code === "insufficient_balance") return "insufficient_funds";
  if (code === "insufficient_credit") return code;
  return code === "relayer_low_balance" ? "relayer_low_balance" : "funding_invalid";
}
