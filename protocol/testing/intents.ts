import { privateKeyToAccount } from "viem/accounts";
import type { z } from "zod";
import { Address, Bytes32, HexBytes } from "../ids.ts";
import { Intent } from "../intent.ts";
import { createHasher } from "../typed-data-encoder.ts";
import golden from "../vectors/p256.json" with { type: "json" };

/** For tests: an intent of each kind, of one consumer whose key is P-256. */
export const hasher = createHasher({ chainId: 10, escrow: `0x${"e5".repeat(20)}` });
export const account = (n: number) => `0x${n.toString(16).padStart(40, "0")}` as const;
const salt = `0x${"5a".repeat(32)}` as const;
export const terms = {
  payer: account(1),
  consumerSigner: Address.parse(golden.signer),
  provider: account(3),
  providerSigner: account(4),
  meter: account(5),
  feeRecipient: account(6),
  feeBps: 500,
  upfront: "1",
  unattended: "2",
  ratePerHour: "3",
  expiry: 1_800_000_000,
  quote: salt,
};
const hash = Bytes32.parse(`0x${"ab".repeat(32)}`);
/** Of a secp256k1 key; what it signs matters nowhere here. */
export const signature = await privateKeyToAccount(`0x${"11".repeat(32)}`).sign({ hash });
/** A signature of the P-256 key of vectors/p256.json, with either s. */
export const browser = {
  low: HexBytes.parse(golden.vectors[0]?.signature),
  high: HexBytes.parse(golden.vectors[0]?.high),
};
const credit = { payer: account(1), spender: account(2), meter: account(5) };
const authorization = { from: account(1), salt, validAfter: 0, validBefore: 1_700_000_000, signature };

/** One of each kind. */
const wires: z.input<typeof Intent>[] = [
  { kind: "fund", terms: [terms], amounts: ["9"], ...authorization },
  { kind: "deposit", spender: account(2), meter: account(5), amount: "9", ...authorization },
  {
    kind: "allocate",
    terms: [terms],
    fundedTo: ["9"],
    validBefore: 1_700_000_001,
    signature: browser.high,
    meterSignature: signature,
  },
  {
    kind: "settle",
    terms,
    cumulative: "9",
    evidence: salt,
    signatures: { consumer: browser.high, provider: signature },
  },
  {
    kind: "close",
    terms,
    cumulative: "9",
    evidence: salt,
    validBefore: 1_700_000_002,
    signatures: { provider: signature, meter: signature },
    allowance: { cumulative: "9", signature: browser.high },
  },
  { kind: "exit", terms, signature: browser.high },
  { kind: "reclaim", terms },
  { kind: "release", ...credit, validBefore: 1_700_000_003, signature },
  { kind: "reclaim_credit", ...credit, releaseAt: 1_700_000_004 },
  { kind: "revoke_meter", meter: account(5), signature },
  { kind: "withdraw", account: account(1), occasion: "today" },
];
export const intents = wires.map((wire) => Intent.parse(wire));

export const wireOf = (kind: Intent["kind"], change: object) => ({
  ...wires.find((each) => each.kind === kind),
  ...change,
});
/** With fields of its wire form exchanged. */
export const intentOf = (kind: Intent["kind"], change: object = {}) => Intent.parse(wireOf(kind, change));
