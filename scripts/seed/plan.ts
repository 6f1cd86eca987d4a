import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Address } from "@gpux/protocol/ids";
import { encodeFunctionData, type Hex } from "viem";
import { authorize, type Devchain, type Rented, signClose, USED } from "./scenario.ts";

/** A transaction that the relayer is to send. */
export interface Planned {
  readonly what: string;
  /** Who signed what it carries. */
  readonly signers: string;
  readonly to: Address;
  readonly data: Hex;
}

const NO_KEY = { x: `0x${"00".repeat(32)}`, y: `0x${"00".repeat(32)}` } as const;
const NO_ALLOWANCE = { cumulative: 0n, sig: { r: NO_KEY.x, vs: NO_KEY.y } } as const;

/** One funding of all leases, `amount` base units each; `now` in seconds. `what` makes it unlike any other. */
export async function funding(
  chain: Devchain,
  leases: readonly Rented[],
  amount: bigint,
  now: number,
  what: string,
): Promise<Planned> {
  const terms = leases.map((lease) => lease.terms);
  const { amounts, auth } = await authorize(chain, terms, amount, now, what);
  const data = encodeFunctionData({
    abi: leaseEscrowAbi,
    functionName: "fund",
    args: [terms, amounts, auth],
  });
  return { what, signers: "consumer", to: chain.escrow, data };
}

/** The call that ends a lease after {@link USED}. */
export async function closing(chain: Devchain, { node, terms }: Rented, now: number): Promise<Hex> {
  const { evidence, validBefore, pair } = await signClose(chain, terms, node, now);
  return encodeFunctionData({
    abi: leaseEscrowAbi,
    functionName: "close",
    args: [terms, USED, evidence, validBefore, pair, NO_ALLOWANCE, NO_KEY],
  });
}

/** The calls that pay everybody out to whom these leases may owe money, once each. */
export function withdrawals(leases: readonly Rented[]): Hex[] {
  const terms = leases.map((lease) => lease.terms);
  const accounts = [
    ...terms.map((each) => each.provider),
    ...terms.map((each) => each.payer),
    ...terms.filter((each) => each.feeBps > 0).map((each) => each.feeRecipient),
  ];
  return [...new Set(accounts)].map((account) =>
    encodeFunctionData({ abi: leaseEscrowAbi, functionName: "withdraw", args: [account] }),
  );
}
