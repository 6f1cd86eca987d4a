/**
 * Puts the escrow on a chain: checks chain and token first, then deploys through the deterministic deployer, so that
 * the address follows from contract and token alone, whoever pays for it, and then looks at what stands there. Used by
 * tools (scripts/deploy.ts); does nothing by itself.
 */
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Address } from "@gpux/protocol/ids";
import {
  type Account,
  type Chain,
  concat,
  formatEther,
  type Hex,
  keccak256,
  type PublicClient,
  parseAbi,
  size,
  type Transport,
  type WalletClient,
} from "viem";
import {
  constructorArgs,
  creationCode,
  DETERMINISTIC_DEPLOYER,
  DETERMINISTIC_DEPLOYER_CODE,
  escrowAddress,
  isEscrowCode,
  SALT,
} from "./escrow-code.ts";
import { ESCROW_DELAYS, type Network } from "./networks.ts";
import { checkToken, type DeployRefusal, refuse, type TokenFacts } from "./token-check.ts";

/** Told of each check as it passes: what was looked at, and what was found. */
export type Report = (check: string, found: string) => void;

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

export interface NetworkFacts {
  readonly ok: true;
  readonly escrow: Address;
  readonly token: TokenFacts;
  /** Something stands at the address already, by whomever; {@link verifyEscrow} says what. */
  readonly deployed: boolean;
}

/** All that has to hold before a deployment; sends nothing. */
export async function checkNetwork(
  chain: PublicClient,
  network: Network,
  report: Report = () => {},
): Promise<NetworkFacts | DeployRefusal> {
  const chainId = await chain.getChainId();
  if (chainId !== network.chainId) {
    return refuse("wrong_chain", `The RPC serves chain ${chainId}; ${network.name} is ${network.chainId}.`);
  }
  report("chain", `${network.name}, ${chainId}`);
  const deployer = await chain.getCode({ address: DETERMINISTIC_DEPLOYER });
  if (deployer !== DETERMINISTIC_DEPLOYER_CODE) {
    return refuse(
      "no_deployer",
      `${network.name} has ${deployer === undefined ? "nothing" : "another contract"} at ${DETERMINISTIC_DEPLOYER}, where every OP chain has the deterministic deployer.`,
    );
  }
  report("deterministic deployer", DETERMINISTIC_DEPLOYER);
  if (!(await hasP256(chain))) {
    return refuse(
      "no_p256",
      `${network.name} has no P-256 precompile at 0x100 (RIP-7212, OP Stack since Fjord).`,
    );
  }
  report("P-256 precompile", "verifies RIP-7212's vector");
  const token = await checkToken(chain, network.token);
  if (!token.ok) return token;
  report(
    "token",
    `${network.token} ${token.name}, version ${token.version}, 6 decimals, EIP-3009 with bytes`,
  );
  const escrow = escrowAddress(network.token);
  const deployed = (await chain.getCode({ address: escrow })) !== undefined;
  report("escrow", `${escrow}, ${deployed ? "something stands there" : "free"}`);
  return { ok: true, escrow, token, deployed };
}

export interface Deployment {
  readonly ok: true;
  readonly escrow: Address;
  /** Null: it stood there already, by whomever. */
  readonly transaction: Hex | null;
  readonly token: TokenFacts;
  readonly codeHash: Hex;
}

/** Idempotent. Throws when the RPC fails or the transaction does. */
export async function deployEscrow(
  chain: PublicClient,
  wallet: WalletClient<Transport, Chain, Account>,
  network: Network,
  report: Report = () => {},
): Promise<Deployment | DeployRefusal> {
  const facts = await checkNetwork(chain, network, report);
  if (!facts.ok) return facts;
  const { escrow, token } = facts;
  let transaction: Hex | null = null;
  if (!facts.deployed) {
    const data = concat([SALT, creationCode(network.token)]);
    const poor = await lacksEther(chain, wallet, data);
    if (poor !== null) return poor;
    transaction = await wallet.sendTransaction({ to: DETERMINISTIC_DEPLOYER, data });
    report("sent", transaction);
    const { status, gasUsed } = await chain.waitForTransactionReceipt({ hash: transaction });
    if (status !== "success") throw new Error(`the deployment ${transaction} failed`);
    report("included", `${gasUsed} gas`);
  }
  const verified = await verifyEscrow(chain, network, report);
  return verified.ok ? { ok: true, escrow, transaction, token, codeHash: verified.codeHash } : verified;
}

const GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F";
/** What a transaction has around its calldata, unsigned, at most. */
const TRANSACTION_BYTES = 120;

async function lacksEther(
  chain: PublicClient,
  wallet: WalletClient<Transport, Chain, Account>,
  data: Hex,
): Promise<DeployRefusal | null> {
  const call = { account: wallet.account, to: DETERMINISTIC_DEPLOYER, data } as const;
  const { address } = wallet.account;
  const [balance, gas, { maxFeePerGas }, l1Fee] = await Promise.all([
    chain.getBalance({ address }),
    // Nobody's balance must stand in the way of knowing what it costs.
    chain.estimateGas({ ...call, account: undefined }),
    chain.estimateFeesPerGas(),
    chain.readContract({
      address: GAS_PRICE_ORACLE,
      abi: parseAbi(["function getL1FeeUpperBound(uint256) view returns (uint256)"]),
      functionName: "getL1FeeUpperBound",
      args: [BigInt(size(data) + TRANSACTION_BYTES)],
    }),
  ]);
  const needed = gas * maxFeePerGas + l1Fee;
  if (balance >= needed) return null;
  return refuse(
    "no_ether",
    `${address} holds ${formatEther(balance)} ETH and may need up to ${formatEther(needed)}; send it the rest.`,
  );
}

/** Whether what stands at the network's address is the escrow, with the immutables that it should have. */
export async function verifyEscrow(
  chain: PublicClient,
  network: Network,
  report: Report = () => {},
): Promise<{ ok: true; codeHash: Hex } | DeployRefusal> {
  const escrow = escrowAddress(network.token);
  const code = await chain.getCode({ address: escrow });
  if (code === undefined || !isEscrowCode(code)) {
    return refuse("other_code", `What stands at ${escrow} is not the escrow of this source. Do not use it.`);
  }
  const codeHash = keccak256(code);
  report("code", `as compiled, keccak256 ${codeHash}`);
  const read = { address: escrow, abi: leaseEscrowAbi } as const;
  const [token, exit, cosignedExit, release, maxTerm, domain] = await Promise.all([
    chain.readContract({ ...read, functionName: "token" }),
    chain.readContract({ ...read, functionName: "EXIT_DELAY" }),
    chain.readContract({ ...read, functionName: "COSIGNED_EXIT_DELAY" }),
    chain.readContract({ ...read, functionName: "RELEASE_DELAY" }),
    chain.readContract({ ...read, functionName: "MAX_TERM" }),
    chain.readContract({ ...read, functionName: "eip712Domain" }),
  ]);
  const [, name, version, chainId, verifyingContract] = domain;
  const found = [Address.parse(token), exit, cosignedExit, release, maxTerm, name, version, chainId];
  const wanted = [...constructorArgs(network.token), "GPUX Lease Escrow", "1", BigInt(network.chainId)];
  if (found.join() !== wanted.join() || Address.parse(verifyingContract) !== escrow) {
    return refuse("other_code", `The escrow at ${escrow} was made with ${found}; expected ${wanted}.`);
  }
  report(
    "immutables",
    `token ${network.token}, delays ${Object.values(ESCROW_DELAYS).join(", ")} s, domain ${name} ${version}`,
  );
  return { ok: true, codeHash };
}
