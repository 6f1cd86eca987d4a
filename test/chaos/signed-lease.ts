import type { DevnetFacts } from "@gpux/contracts/devnet-client";
import { authorizationDigest, LeaseTerms, TokenDomain } from "@gpux/protocol/eip712";
import { Address, Bytes32 } from "@gpux/protocol/ids";
import { Intent } from "@gpux/protocol/intent";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { generatePrivateKey, type PrivateKeyAccount, privateKeyToAccount } from "viem/accounts";
import { z } from "zod";

/** What every lease of a run is worth, in base units: paid in, settled on the way, paid in the end. */
export const FUNDED = 1_000_000n;
export const SETTLED = 300_001n;
export const CLOSED = 700_003n;
export const FEE_BPS = 500;

export type Wire = z.input<typeof Intent>;

/** A lease of fresh parties, and everything they will ever sign for it. */
export interface SignedLease {
  readonly terms: LeaseTerms;
  /** What the relayer is to land, in stages; those of one stage at the same time. */
  readonly stages: readonly (readonly Wire[])[];
}

const account = () => privateKeyToAccount(generatePrivateKey());
const addressOf = (of: PrivateKeyAccount) => Address.parse(of.address);

export async function signLease(chain: DevnetFacts): Promise<SignedLease> {
  const hasher = createHasher({ chainId: chain.chainId, escrow: chain.escrow });
  const [payer, consumer, provider, meter] = [account(), account(), account(), account()];
  const terms = LeaseTerms.parse({
    payer: payer.address,
    consumerSigner: consumer.address,
    provider: addressOf(account()),
    providerSigner: provider.address,
    meter: meter.address,
    feeRecipient: addressOf(account()),
    feeBps: FEE_BPS,
    upfront: FUNDED.toString(),
    unattended: FUNDED.toString(),
    ratePerHour: "3600",
    // The chain's clock runs ahead by a second with every reorganisation.
    expiry: Math.floor(Date.now() / 1000) + 36_000,
    quote: generatePrivateKey(),
  });
  const leaseId = hasher.leaseTerms(terms);
  const salt = Bytes32.parse(generatePrivateKey());
  const evidence = Bytes32.parse(generatePrivateKey());
  const domain = TokenDomain.parse({
    name: "USD Coin",
    version: "2",
    chainId: chain.chainId,
    verifyingContract: chain.usdc,
  });
  const validBefore = terms.expiry;
  const funding = authorizationDigest(domain, {
    from: terms.payer,
    to: chain.escrow,
    value: FUNDED,
    validAfter: 0n,
    validBefore: BigInt(validBefore),
    nonce: hasher.fundingNonce({ leaseIds: [leaseId], amounts: [FUNDED], salt }),
  });
  const usage = hasher.usage({ leaseId, cumulative: SETTLED, evidence });
  const close = hasher.close({ leaseId, cumulative: CLOSED, evidence, validBefore });
  const fund: Intent = {
    kind: "fund",
    from: terms.payer,
    terms: [terms],
    amounts: [FUNDED],
    salt,
    validAfter: 0,
    validBefore,
    signature: await payer.sign({ hash: funding }),
  };
  const settle: Intent = {
    kind: "settle",
    terms,
    cumulative: SETTLED,
    evidence,
    signatures: { provider: await provider.sign({ hash: usage }), meter: await meter.sign({ hash: usage }) },
  };
  const end: Intent = {
    kind: "close",
    terms,
    cumulative: CLOSED,
    evidence,
    validBefore,
    signatures: {
      consumer: await consumer.sign({ hash: close }),
      provider: await provider.sign({ hash: close }),
    },
  };
  const payouts = [terms.provider, terms.feeRecipient, terms.payer].map(
    (of): Intent => ({ kind: "withdraw", account: of, occasion: leaseId }),
  );
  const wire = (intent: Intent): Wire => z.encode(Intent, intent);
  return { terms, stages: [[wire(fund)], [wire(settle)], [wire(end)], payouts.map(wire)] };
}
