import type { Address, LeaseId } from "@gpux/protocol/ids";
import { Intent, type IntentRefusalCode } from "@gpux/protocol/intent";
import type { OrderAuthorization } from "@gpux/protocol/order";
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
      return { ok: true, leg: { hold: draft.hold, leaseHash: draft.leaseHash, amount } };
    },
    hold: ({ hold: request, leaseHash, amount }) =>
      hold(env, { draft: { hold: request, leaseHash }, amount }),
  };
}

/** Who carries out an order's duties: its leases and nodes, and the relayer. */
export function partiesOf(env: ObjectEnv): Parties {
  const leaseOf = (lease: LeaseId) => env.LEASE.getByName(lease);
  return {
    async free({ hold: { lease, terms } }) {
      await leaseOf(lease).close(terms.payer);
      await env.NODE.getByName(terms.providerSigner).release(lease);
    },
    reserve: ({ hold: { lease } }, funding) => leaseOf(lease).reserve(funding.valid_before),
    async submit(state, funding) {
      const answer = await env.RELAYER.submit(z.encode(Intent, intentOf(state, funding)));
      if (answer.status !== "rejected") return { ok: true };
      return { ok: false, code: fundingRefusal(answer.code), detail: answer.detail };
    },
    async tell(leg, state, funding) {
      const { amounts, ...authorization } = funding;
      const legs = keptLegs(state);
      const index = legs.findIndex(({ hold: { lease } }) => lease === leg.hold.lease);
      const lease = leaseOf(leg.hold.lease);
      // It may have lapsed and been forgotten while this account was down; its money may be on chain all the same.
      await lease.quote({ ...leg.hold, amount: leg.amount });
      const amount = amounts[index] ?? leg.amount;
      const plan = { order: state.id, index, terms: legs.map(({ hold: { terms } }) => terms), amounts };
      const told = await lease.fund({ ...authorization, amount }, plan);
      // A refusal of the chain's is the lease's to show; any other would be a bug of ours.
      if (!told.ok && told.code !== "insufficient_funds" && told.code !== "funding_invalid")
        throw new Error(`${leg.hold.lease} does not take its funding: ${told.code}`);
    },
  };
}

/** One intent for all leases: the chain takes it whole or not at all. */
function intentOf(state: OrderState, funding: OrderAuthorization): Intent {
  const legs = keptLegs(state);
  const [first] = legs;
  if (first === undefined) throw new Error("an order without leases is funded");
  return {
    kind: "fund",
    from: first.hold.terms.payer,
    terms: legs.map(({ hold: { terms } }) => terms),
    amounts: funding.amounts,
    salt: funding.salt,
    validAfter: funding.valid_after,
    validBefore: funding.valid_before,
    signature: funding.signature,
  };
}

function fundingRefusal(code: IntentRefusalCode) {
  if (code === "insufficient_balance") return "insufficient_funds";
  return code === "relayer_low_balance" ? "relayer_low_balance" : "funding_invalid";
}
