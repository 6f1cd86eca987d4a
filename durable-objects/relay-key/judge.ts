import { calldataOf, deadlineOf } from "@gpux/protocol/calldata";
import type { HexBytes } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import type { IntentEvent } from "./machine.ts";
import { type Escrow, fulfilmentByState, ofOneBlock, valueMoved } from "./outcome.ts";
import type { Policy } from "./policy.ts";
import { refusalOf } from "./refusal.ts";

/** Two OP blocks: what has less time left would only burn gas. */
const INCLUSION_MS = 4_000;
/** ERC-6492: a wrapped signature of a wallet that is yet to be deployed ends with this. */
const COUNTERFACTUAL = "6492".repeat(16);

/** Whose code may run when the signature is checked: inside USDC for money in, by the escrow for what asks for it back. */
function signerWithCode(intent: Intent): { account: HexBytes; signature: HexBytes } | null {
  switch (intent.kind) {
    case "fund":
    case "deposit":
      return { account: intent.from, signature: intent.signature };
    case "exit":
      return { account: intent.terms.payer, signature: intent.signature };
    case "release":
      return { account: intent.payer, signature: intent.signature };
    case "allocate":
    case "settle":
    case "close":
    case "reclaim":
    case "reclaim_credit":
    case "revoke_meter":
    case "withdraw":
      return null;
  }
}

/** What can be said without running it: the form of the signatures, and whether it may share a transaction. */
export async function verify(escrow: Escrow, intent: Intent): Promise<IntentEvent> {
  if (calldataOf(intent) === null)
    return { t: "refused", code: "bad_signature", detail: "malformed or high-s" };
  const signer = signerWithCode(intent);
  if (signer === null) return { t: "verified", alone: false };
  // A delegated account (EIP-7702) has code as well, and USDC asks it.
  if (await escrow.chain.hasCode(signer.account)) return { t: "verified", alone: true };
  if (signer.signature.endsWith(COUNTERFACTUAL))
    return { t: "refused", code: "wallet_not_deployed", detail: `${signer.account} has no code` };
  return { t: "verified", alone: false };
}

/** Runs it at the latest block, and finds out why it cannot be done: perhaps because it is done. */
export async function simulate(
  escrow: Escrow,
  policy: Policy,
  intent: Intent,
  restsOn: readonly Intent[],
): Promise<IntentEvent> {
  const calldata = calldataOf(intent);
  if (calldata === null) return { t: "refused", code: "bad_signature", detail: "malformed or high-s" };
  const deadline = deadlineOf(intent);
  const late = deadline !== null && deadline * 1_000 <= Date.now() + INCLUSION_MS;
  // From nobody: the escrow never asks who calls, and with a sender some nodes check its balance first.
  const outcome = await escrow.chain.call({ to: escrow.address, ...calldata });
  if (outcome.ok && !late) {
    const asked = policy.costShareBps > 0 || (intent.kind === "withdraw" && policy.withdrawWindowMs > 1_000);
    return { t: "simulated", value: asked ? await valueMoved(escrow, intent) : null };
  }
  const [again, fulfilment] = await ofOneBlock(escrow, (then, block) =>
    Promise.all([
      then.chain.call({ to: escrow.address, ...calldata }),
      fulfilmentByState(then, block, intent, restsOn),
    ]),
  );
  // The chain has moved, and it may go now; or what it rests on is not there yet.
  if ((again.ok && !late) || fulfilment === "premature") return { t: "failed" };
  if (fulfilment !== null) return { t: "fulfilled", fulfilment };
  // A call runs at the time of the latest block, which may still be before the deadline.
  if (again.ok) return { t: "refused", code: "expired", detail: `it had to land before ${deadline}` };
  return { t: "refused", ...refusalOf(intent.kind, again.data, again.message) };
}
