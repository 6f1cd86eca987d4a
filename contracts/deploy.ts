/**
 * Puts the escrow on a chain: checks chain and token first, then deploys through the deterministic deployer, so that
 * the address follows from contract and token alone, whoever pays for it. Used by tools; does nothing by itself.
 */
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { tokenTypes } from "@gpux/protocol/eip712";
import { Address } from "@gpux/protocol/ids";
import {
  AbiDecodingZeroDataError,
  type Account,
  BaseError,
  type Chain,
  ContractFunctionRevertedError,
  ContractFunctionZeroDataError,
  concat,
  encodeAbiParameters,
  encodeDeployData,
  getCreate2Address,
  type Hex,
  type PublicClient,
  type Transport,
  type WalletClient,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { leaseEscrowBytecode } from "./bytecode.ts";
import { BRIDGED_USDC, ESCROW_DELAYS, type Network } from "./networks.ts";

/** The keyless deployer at this address of every OP chain: calldata is a salt and the creation code. */
export const DETERMINISTIC_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C";

/** Changes with a new version of the escrow, never else. */
const SALT: Hex = `0x${"00".repeat(31)}01`;

export type DeployRefusalCode =
  | "wrong_chain"
  | "no_deployer"
  | "no_p256"
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

const refuse = (code: DeployRefusalCode, detail: string): DeployRefusal => ({ ok: false, code, detail });

/** What an EIP-712 signature in the token's domain needs, read from the token. */
export interface TokenFacts {
  readonly ok: true;
  readonly name: string;
  readonly version: string;
}

const CONSTRUCTOR_TYPES = [
  { type: "address" },
  { type: "uint256" },
  { type: "uint256" },
  { type: "uint256" },
  { type: "uint256" },
] as const;

function constructorArgs(token: Address) {
  const { exit, cosignedExit, release, maxTerm } = ESCROW_DELAYS;
  return [token, exit, cosignedExit, release, maxTerm] as const;
}

const creationCode = (token: Address): Hex =>
  encodeDeployData({ abi: leaseEscrowAbi, bytecode: leaseEscrowBytecode, args: constructorArgs(token) });

/** Where the escrow for this token stands, or will, on any chain that has the deterministic deployer. */
export function escrowAddress(token: Address): Address {
  const bytecode = creationCode(token);
  return Address.parse(getCreate2Address({ from: DETERMINISTIC_DEPLOYER, salt: SALT, bytecode }));
}

/** RIP-7212's own test vector (Wycheproof ecdsa_secp256r1_sha256, r = 5, s = 1): hash, r, s, x, y. */
const P256_VECTOR: Hex = concat([
  "0xbb5a52f42f9c9261ed4361f59422a1e30036e7c32b270c8807a419feca605023",
  `0x${"00".repeat(31)}05`,
  `0x${"00".repeat(31)}01`,
  "0xa71af64de5126a4a4e02b7922d66ce9415ce88a4c9d25514d91082c8725ac957",
  "0x5d47723c8fbe580bb369fec9c2665d8e30a435b9932645482e7c9f11e872296b",
]);

async function hasP256(chain: PublicClient): Promise<boolean> {
  const { data } = await chain.call({ to: `0x${"00".repeat(18)}0100`, data: P256_VECTOR });
  return data !== undefined && BigInt(data) === 1n;
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
 * Lets a new key give nothing to `payee` by EIP-3009, in a call that changes nothing: it succeeds only where the token
 * has the overload that takes `bytes`, in the domain that its `name` and `version` say.
 */
async function takesAuthorization(
  chain: PublicClient,
  token: Address,
  payee: Hex,
  domain: { readonly name: string; readonly version: string; readonly chainId: number },
  honest: boolean,
): Promise<boolean> {
  const payer = privateKeyToAccount(generatePrivateKey());
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
  });
  return (await answered(call)) !== null;
}

/**
 * Whether the escrow can trust this token's interface. Its owner's powers (pause, blacklist) it has to live with.
 * `caller` is asked to pay nothing, but some nodes want it to hold ETH for a call's L1 fee.
 */
export async function checkToken(
  chain: PublicClient,
  token: Address,
  caller: Hex,
): Promise<TokenFacts | DeployRefusal> {
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
  if (!(await takesAuthorization(chain, token, caller, domain, true))) {
    return refuse(
      "no_eip3009",
      `${token} refuses a valid ReceiveWithAuthorization in the domain ${name}, version ${version}: it lacks EIP-3009 with a bytes signature (USDC 2.2).`,
    );
  }
  if (await takesAuthorization(chain, token, caller, domain, false)) {
    return refuse("ignores_signatures", `${token} takes an authorization that nobody signed.`);
  }
  return { ok: true, name, version };
}

export interface Deployment {
  readonly ok: true;
  readonly escrow: Address;
  /** Null: it stood there already, by whomever. */
  readonly transaction: Hex | null;
  readonly token: TokenFacts;
}

/** Idempotent. Throws when the RPC fails or the transaction does. */
export async function deployEscrow(
  chain: PublicClient,
  wallet: WalletClient<Transport, Chain, Account>,
  network: Network,
): Promise<Deployment | DeployRefusal> {
  const chainId = await chain.getChainId();
  if (chainId !== network.chainId) {
    return refuse("wrong_chain", `The RPC serves chain ${chainId}; ${network.name} is ${network.chainId}.`);
  }
  if ((await chain.getCode({ address: DETERMINISTIC_DEPLOYER })) === undefined) {
    return refuse(
      "no_deployer",
      `${network.name} has nothing at ${DETERMINISTIC_DEPLOYER}, as every OP chain has.`,
    );
  }
  if (!(await hasP256(chain))) {
    return refuse(
      "no_p256",
      `${network.name} has no P-256 precompile at 0x100 (RIP-7212, OP Stack since Fjord).`,
    );
  }
  const token = await checkToken(chain, network.token, wallet.account.address);
  if (!token.ok) return token;
  const escrow = escrowAddress(network.token);
  if ((await chain.getCode({ address: escrow })) !== undefined) {
    return { ok: true, escrow, transaction: null, token };
  }
  const data = concat([SALT, creationCode(network.token)]);
  const transaction = await wallet.sendTransaction({ to: DETERMINISTIC_DEPLOYER, data });
  const { status } = await chain.waitForTransactionReceipt({ hash: transaction });
  if (status !== "success" || (await chain.getCode({ address: escrow })) === undefined) {
    throw new Error(`the deployment ${transaction} failed`);
  }
  return { ok: true, escrow, transaction, token };
}

/** What a person enters on an explorer to verify the source, and what to compare by eye. */
export function verificationOf(
  network: Network,
  settings: { readonly compiler: string; readonly runs: number },
): string {
  const [token, ...delays] = constructorArgs(network.token);
  const encoded = encodeAbiParameters(CONSTRUCTOR_TYPES, [token, ...delays]);
  return [
    `contract              ${escrowAddress(network.token)} on ${network.name} (chain ${network.chainId})`,
    ...(network.explorer === undefined
      ? []
      : [`page                  ${network.explorer}/address/${escrowAddress(network.token)}#code`]),
    "name                  contracts/src/LeaseEscrow.sol:LeaseEscrow",
    `compiler              solc ${settings.compiler}, optimizer on, ${settings.runs} runs, EVM prague, no via-IR`,
    "license               Apache-2.0",
    `constructor arguments ${encoded.slice(2)}`,
    `check by eye          token ${token}, delays in seconds: ${delays.join(", ")} (exit, co-signed exit, release, longest term)`,
    "                      no owner, no proxy: the page must show neither",
  ].join("\n");
}
