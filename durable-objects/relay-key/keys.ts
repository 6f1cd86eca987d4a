import { Bytes32 } from "@gpux/protocol/ids";
import { keyAccount } from "@gpux/protocol/key-account";
import type { PrivateKeyAccount } from "viem/accounts";

/**
 * The gas-paying accounts from the secret `RELAYER_KEYS`: private keys as 0x-hex, separated by commas.
 * @throws ZodError, without the text, when one is no key.
 */
export function relayerAccounts(secret: string): readonly [PrivateKeyAccount, ...PrivateKeyAccount[]] {
  const [first, ...rest] = secret.split(",").map((key) => keyAccount(Bytes32.parse(key.trim())));
  if (first === undefined) throw new Error("RELAYER_KEYS names no key");
  return [first, ...rest];
}
