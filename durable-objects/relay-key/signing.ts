import type { HexBytes } from "@gpux/protocol/ids";
import { keccak256, serializeTransaction } from "viem";
import type { PrivateKeyAccount } from "viem/accounts";
import type { Chain } from "./chain.ts";
import type { Attempt, Fees } from "./flight.ts";

/** Prices and signatures of transactions. Nothing here counts nonces. */

const GWEI = 1_000_000_000n;

/** OP's builder takes any tip; a node that names a high one shall not spend our gas money. */
function boundedTip(suggested: bigint, baseFee: bigint): bigint {
  const bound = baseFee > GWEI / 100n ? baseFee : GWEI / 100n;
  return suggested < bound ? suggested : bound;
}

/** What the next block asks, with room for six full blocks of rises (EIP-1559: an eighth each); null above `cap`. */
export async function marketFees(chain: Chain, cap: bigint): Promise<(Fees & { baseFee: bigint }) | null> {
  const [head, suggested] = await Promise.all([chain.head(), chain.suggestedTip()]);
  const baseFee = head.baseFeePerGas;
  const tip = boundedTip(suggested, baseFee);
  if (baseFee + tip > cap) return null;
  const roomy = 2n * baseFee + tip;
  return { baseFee, maxPriorityFeePerGas: tip, maxFeePerGas: roomy < cap ? roomy : cap };
}

export interface Order {
  readonly chainId: number;
  readonly nonce: number;
  readonly to: HexBytes;
  readonly data: HexBytes;
  readonly gas: bigint;
  readonly fees: Fees;
  readonly purpose: Attempt["purpose"];
}

const fieldsOf = ({ chainId, nonce, to, data, gas, fees }: Order) =>
  ({
    type: "eip1559",
    chainId,
    nonce,
    to,
    data,
    gas,
    maxFeePerGas: fees.maxFeePerGas,
    maxPriorityFeePerGas: fees.maxPriorityFeePerGas,
  }) as const;

/** What it takes at most, and what it should take at `baseFee`, in wei; L1 data and operator fee by the chain's oracle. */
export async function priceOf(
  chain: Chain,
  order: Order,
  baseFee: bigint,
): Promise<{ readonly most: bigint; readonly expected: bigint }> {
  const surcharge = await chain.surcharge(serializeTransaction(fieldsOf(order)), order.gas);
  return {
    // L1 fees move between signing and inclusion; a quarter more is what the balance must bear.
    most: order.gas * order.fees.maxFeePerGas + surcharge + surcharge / 4n,
    expected: order.gas * (baseFee + order.fees.maxPriorityFeePerGas) + surcharge,
  };
}

export async function sign(account: PrivateKeyAccount, order: Order, most: bigint): Promise<Attempt> {
  const raw = await account.signTransaction(fieldsOf(order));
  return {
    hash: keccak256(raw),
    raw,
    purpose: order.purpose,
    maxFeePerGas: order.fees.maxFeePerGas.toString(),
    maxPriorityFeePerGas: order.fees.maxPriorityFeePerGas.toString(),
    maxCost: most.toString(),
    calldataBytes: (order.data.length - 2) / 2,
  };
}

export const TRANSFER_GAS = 21_000n;
