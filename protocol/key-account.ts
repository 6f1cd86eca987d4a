import { type PrivateKeyAccount, privateKeyToAccount } from "viem/accounts";
import { hashMessage, hashTypedData } from "viem/utils";
import { curve } from "#secp256k1";
import type { Bytes32, HexBytes } from "./ids.ts";

/**
 * viem's account of a private key, with its signatures of digests, messages and typed data made by the runtime's own
 * secp256k1: the same bytes as viem's (RFC 6979), several times faster (docs/benchmarks.md). Transactions and EIP-7702
 * authorizations, which are few, are viem's.
 */
export function keyAccount(privateKey: Bytes32): PrivateKeyAccount {
  const account = privateKeyToAccount(privateKey);
  const sign = async (digest: Bytes32): Promise<HexBytes> => {
    const { r, s, yParity } = await curve.sign(digest, privateKey);
    return `0x${r.slice(2)}${s.slice(2)}${yParity === 1 ? "1c" : "1b"}`;
  };
  return {
    ...account,
    sign: ({ hash }) => sign(hash),
    signMessage: ({ message }) => sign(hashMessage(message)),
    signTypedData: (typedData) => sign(hashTypedData(typedData)),
  };
}
