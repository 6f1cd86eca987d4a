import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { tokenTypes } from "@gpux/protocol/eip712";
import type { Address } from "@gpux/protocol/ids";
import {
  AbiDecodingZeroDataError,
  BaseError,
  ContractFunctionRevertedError,
  ContractFunctionZeroDataError,
  type PublicClient,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { BRIDGED_USDC } from "./networks.ts";

export type DeployRefusalCode =
  | "wrong_chain"
  | "no_deployer"
  | "no_p256"
  | "no_ether"
  | "other_code"
  | "bridged_usdc"
  | "not_a_token"
  | "unexpected_decimals"
  | "no_eip3009"
  | "ignores_signatures";

export interface DeployRefusal {
  readonly ok: false;
  readonly code: DeployRefusalCode;
  /** Says why, and what to do. */
  readonly detail: string;
}

export const refuse = (code: DeployRefusalCode, detail: string): DeployRefusal => ({
  ok: false,
  code,
  detail,
});

/** What an EIP-712 signature in the token's domain needs, read from the token. */
export interface TokenFacts {
  readonly ok: true;
  readonly name: string;
  readonly version: string;
}

/** Null when the contract reverts or answers something else; other failures (the RPC's) are thrown. */
async function answered<T>(question: Promise<T>): Promise<T | null> {
  try {
    return await question;
  } catch (error) {
    const contractSaysNo =
      error instanceof BaseError &&
      error.walk(
        (cause) =>
          cause instanceof ContractFunctionRevertedError ||
          cause instanceof ContractFunctionZeroDataError ||
          cause instanceof AbiDecodingZeroDataError,
      ) !== null;
    if (contractSaysNo) return null;
    throw error;
  }
}

/**
 * Lets a new key give nothing to another by EIP-3009, in a call that changes nothing: it succeeds only where the token
 * has the overload that takes `bytes`, in the domain that its `name` and `version` say.
 */
async function takesAuthorization(
  chain: PublicClient,
  token: Address,
  domain: { readonly name: string; readonly version: string; readonly chainId: number },
  honest: boolean,
): Promise<boolean> {
  const payer = privateKeyToAccount(generatePrivateKey());
  const payee = privateKeyToAccount(generatePrivateKey()).address;
  const [validAfter, validBefore, nonce] = [0n, 2n ** 40n, `0x${"5a".repeat(32)}`] as const;
  const message = { from: payer.address, to: payee, value: 0n, validAfter, validBefore, nonce };
  const signature = await payer.signTypedData({
    domain: { ...domain, verifyingContract: token },
    types: tokenTypes,
    primaryType: "ReceiveWithAuthorization",
    message: honest ? message : { ...message, value: 1n },
  });
  const call = chain.simulateContract({
    account: payee,
    address: token,
    abi: usdcAbi,
    functionName: "receiveWithAuthorization",
    args: [payer.address, payee, 0n, validAfter, validBefore, nonce, signature],
    // Some nodes want a caller to hold ETH for the L1 fee of a call that nobody will ever pay.
    stateOverride: [{ address: payee, balance: 10n ** 18n }],
  });
  return (await answered(call)) !== null;
}

/**
 * Whether the escrow can trust this token's interface. Its owner's powers (pause, blacklist) it has to live with.
 */
export async function checkToken(chain: PublicClient, token: Address): Promise<TokenFacts | DeployRefusal> {
  if (BRIDGED_USDC.has(token)) {
    return refuse(
      "bridged_usdc",
      `${token} is USDC.e, the bridged form: it has no EIP-3009, so no signature can fund a lease. Take Circle's own USDC.`,
    );
  }
  const read = <Name extends "name" | "version" | "decimals">(functionName: Name) =>
    answered(chain.readContract({ address: token, abi: usdcAbi, functionName }));
  const decimals = await read("decimals");
  if (decimals === null) return refuse("not_a_token", `${token} answers no decimals() on this chain.`);
  if (decimals !== 6) {
    return refuse(
      "unexpected_decimals",
      `${token} has ${decimals} decimals; prices here are in units of 10^-6.`,
    );
  }
  const [name, version] = await Promise.all([read("name"), read("version")]);
  if (typeof name !== "string" || typeof version !== "string") {
    return refuse("not_a_token", `${token} answers no name() or version(), which its EIP-712 domain needs.`);
  }
  const domain = { name, version, chainId: await chain.getChainId() };
  if (!(await takesAuthorization(chain, token, domain, true))) {
    return refuse(
      "no_eip3009",
      `${token} refuses a valid ReceiveWithAuthorization in the domain ${name}, version ${version}: it lacks EIP-3009 with a bytes signature (USDC 2.2).`,
    );
  }
  if (await takesAuthorization(chain, token, domain, false)) {
    return refuse("ignores_signatures", `${token} takes an authorization that nobody signed.`);
  }
  return { ok: true, name, version };
}
