import type { HexBytes } from "@gpux/protocol/ids";
import { keccak256, serializeTransaction } from "viem";
import type { PrivateKeyAccount } from "viem/accounts";
import type { Chain } from "./chain.ts";
import type { SignedTransaction } from "./machine.ts";
import type { Refusal } from "./refusal.ts";

const GWEI = 1_000_000_000n;

/** OP's builder takes any tip; a node that names a high one shall not spend our gas money. */
function boundedTip(suggested: bigint, baseFee: bigint): bigint {
  const bound = baseFee > GWEI / 100n ? baseFee : GWEI / 100n;
  return suggested < bound ? suggested : bound;
}

export interface SigningRequest {
  readonly chainId: number;
  readonly account: PrivateKeyAccount;
  readonly to: HexBytes;
  readonly data: HexBytes;
  readonly gas: bigint;
  /** The lowest nonce that this key has not used yet, as far as it knows. */
  readonly nextNonce: number;
  /** Wei that signed transactions which have not landed may still take. */
  readonly reserved: bigint;
}

/**
 * Prices and signs; `relayer_low_balance` when the key could not pay for it beside all that is under way. The chain's
 * count is a floor of the nonce only: behind it are transactions that never can land.
 * @throws NodeFault
 */
export async function signTransaction(
  chain: Chain,
  request: SigningRequest,
): Promise<{ ok: true; transaction: SignedTransaction } | ({ ok: false } & Refusal)> {
  const { account, chainId, to, data, gas } = request;
  const [head, count, balance, suggested] = await Promise.all([
    chain.head(),
    chain.transactionCount(account.address),
    chain.balance(account.address),
    chain.suggestedTip(),
  ]);
  const nonce = Math.max(request.nextNonce, count);
  const tip = boundedTip(suggested, head.baseFeePerGas);
  const fields = {
    type: "eip1559",
    chainId,
    nonce,
    to,
    data,
    gas,
    maxPriorityFeePerGas: tip,
    // Room for six full blocks of rises (EIP-1559: an eighth each) before it stops being included.
    maxFeePerGas: 2n * head.baseFeePerGas + tip,
  } as const;
  // L1 fees move between signing and inclusion; a quarter more is what the balance must bear.
  const surcharge = await chain.surcharge(serializeTransaction(fields), gas);
  const maxCost = gas * fields.maxFeePerGas + surcharge + surcharge / 4n;
  if (balance < request.reserved + maxCost) {
    const detail = `${account.address} holds ${balance} wei and needs ${request.reserved + maxCost}`;
    return { ok: false, code: "relayer_low_balance", detail };
  }
  const raw = await account.signTransaction(fields);
  return {
    ok: true,
    transaction: {
      hash: keccak256(raw),
      raw,
      nonce,
      calldataBytes: (data.length - 2) / 2,
      maxCost: maxCost.toString(),
    },
  };
}
