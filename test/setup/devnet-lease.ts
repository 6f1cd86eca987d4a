import { usdcAbi } from "@gpux/protocol/abi/usdc";
import {
  authorizationDigest,
  type Close,
  LeaseTerms,
  type ReceiveWithAuthorization,
  TokenDomain,
  type Usage,
} from "@gpux/protocol/eip712";
import { Address, Bytes32, type HexBytes } from "@gpux/protocol/ids";
import { CloseIntent, FundIntent, intentNonce, SettleIntent } from "@gpux/protocol/intent";
import { createHasher, type TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { encodeFunctionData, keccak256, stringToBytes } from "viem";
import { generatePrivateKey, type PrivateKeyAccount, privateKeyToAccount } from "viem/accounts";
import { inject } from "vitest";
import { z } from "zod";
import "./provided-context.ts";

/** For tests on the devnet of `test/setup/devnet.ts`: a lease of fresh parties, and what they sign. */
const devnet = inject("devnet");
export const escrow = Address.parse(devnet.escrow);
export const hasher: TypedDataHasher = createHasher({ chainId: devnet.chainId, escrow });
export const tokenDomain = TokenDomain.parse({
  name: "USD Coin",
  version: "2",
  chainId: devnet.chainId,
  verifyingContract: devnet.usdc,
});

/** Straight to the node, past whatever a test does to the network of the Worker. */
const straight = globalThis.fetch;
export async function node(method: string, params: readonly unknown[]): Promise<unknown> {
  const response = await straight(devnet.url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
  const answer = z
    .looseObject({ result: z.unknown(), error: z.unknown().optional() })
    .parse(await response.json());
  if (answer.error !== undefined) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
  return answer.result;
}

/** A transaction by somebody who is not the relayer. */
export async function stranger(to: HexBytes, data: HexBytes): Promise<void> {
  await node("eth_sendTransaction", [{ from: devnet.deployer, to, data, gas: "0xf4240" }]);
}

export const usdc = Address.parse(devnet.usdc);
export const weiOf = async (address: string) =>
  BigInt(z.string().parse(await node("eth_getBalance", [address, "latest"])));

export interface DevnetLease {
  readonly terms: LeaseTerms;
  readonly id: Bytes32;
  readonly payer: PrivateKeyAccount;
  readonly consumer: PrivateKeyAccount;
  readonly provider: PrivateKeyAccount;
  readonly meter: PrivateKeyAccount;
}

const stranded = () => Address.parse(privateKeyToAccount(generatePrivateKey()).address);

/** Unfunded; `usd` base units wait in the payer's wallet. */
export async function newLease(usd: bigint, change: Partial<LeaseTerms> = {}): Promise<DevnetLease> {
  const [payer, consumer, provider, meter] = [1, 2, 3, 4].map(() =>
    privateKeyToAccount(generatePrivateKey()),
  );
  if (!payer || !consumer || !provider || !meter) throw new Error("four keys");
  const terms: LeaseTerms = {
    ...LeaseTerms.parse({
      payer: payer.address,
      consumerSigner: consumer.address,
      provider: stranded(),
      providerSigner: provider.address,
      meter: meter.address,
      feeRecipient: stranded(),
      feeBps: 500,
      upfront: "1000000",
      unattended: "1000000",
      ratePerHour: "3600",
      expiry: Math.floor(Date.now() / 1000) + 36_000,
      quote: generatePrivateKey(),
    }),
    ...change,
  };
  await stranger(
    usdc,
    encodeFunctionData({ abi: usdcAbi, functionName: "mint", args: [payer.address, usd] }),
  );
  return { terms, id: hasher.leaseTerms(terms), payer, consumer, provider, meter };
}

/**
 * One authorization of the first lease's payer (or of another lease's, who then gives) over all amounts; `validBefore`
 * is the lease's expiry if not told.
 */
export async function fundOf(
  leases: readonly DevnetLease[],
  amounts: readonly bigint[],
  validBefore = leases[0]?.terms.expiry ?? 0,
  giver = leases[0],
) {
  const salt = Bytes32.parse(generatePrivateKey());
  if (giver === undefined) throw new Error("no lease");
  const message: ReceiveWithAuthorization = {
    from: giver.terms.payer,
    to: escrow,
    value: amounts.reduce((sum, amount) => sum + amount),
    validAfter: 0n,
    validBefore: BigInt(validBefore),
    nonce: hasher.fundingNonce({ leaseIds: leases.map((lease) => lease.id), amounts: [...amounts], salt }),
  };
  const signature = await giver.payer.sign({ hash: authorizationDigest(tokenDomain, message) });
  return z.encode(FundIntent, {
    kind: "fund",
    from: giver.terms.payer,
    terms: leases.map((lease) => lease.terms),
    amounts: [...amounts],
    salt,
    validAfter: 0,
    validBefore,
    signature,
  });
}

const evidenceOf = (cumulative: bigint) => keccak256(stringToBytes(`receipts up to ${cumulative}`));

export async function settleOf(lease: DevnetLease, cumulative: bigint) {
  const usage: Usage = { leaseId: lease.id, cumulative, evidence: evidenceOf(cumulative) };
  const hash = hasher.usage(usage);
  return z.encode(SettleIntent, {
    kind: "settle",
    terms: lease.terms,
    cumulative,
    evidence: usage.evidence,
    signatures: { provider: await lease.provider.sign({ hash }), meter: await lease.meter.sign({ hash }) },
  });
}

export async function closeOf(lease: DevnetLease, cumulative: bigint) {
  const close: Close = {
    leaseId: lease.id,
    cumulative,
    evidence: evidenceOf(cumulative),
    validBefore: lease.terms.expiry,
  };
  const hash = hasher.close(close);
  const { evidence, validBefore } = close;
  return z.encode(CloseIntent, {
    kind: "close",
    terms: lease.terms,
    cumulative,
    evidence,
    validBefore,
    signatures: {
      consumer: await lease.consumer.sign({ hash }),
      provider: await lease.provider.sign({ hash }),
    },
  });
}

/** The payer takes its authorization back at the token, as EIP-3009 lets it. */
export async function cancelFunding(lease: DevnetLease, wire: z.input<typeof FundIntent>): Promise<void> {
  const nonce = intentNonce(hasher, FundIntent.parse(wire));
  const signature = await lease.payer.signTypedData({
    domain: tokenDomain,
    types: {
      CancelAuthorization: [
        { name: "authorizer", type: "address" },
        { name: "nonce", type: "bytes32" },
      ],
    },
    primaryType: "CancelAuthorization",
    message: { authorizer: lease.payer.address, nonce },
  });
  const args = [lease.payer.address, nonce, signature] as const;
  await stranger(usdc, encodeFunctionData({ abi: usdcAbi, functionName: "cancelAuthorization", args }));
}
