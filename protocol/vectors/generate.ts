import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { privateKeyToAccount, sign } from "viem/accounts";
import { hashMessage, hashStruct, hashTypedData, keccak256, toBytes } from "viem/utils";
import { z } from "zod";
import {
  escrowDomain,
  ReceiveWithAuthorization,
  type StructName,
  structs,
  tokenTypes,
  types,
} from "../eip712.ts";
import { accountSigner, signRequest } from "../http-signature/erc8128.ts";
import { signatureBase } from "../http-signature/signature-base.ts";
import { parseSignature } from "../http-signature/signature-fields.ts";
import { encodeBase64 } from "../http-signature/structured-fields.ts";
import { leaseIdOf } from "../ids.ts";
import { append, emptyFrontier, proof, root } from "../merkle.ts";
import { toCompact } from "../signature.ts";
import { encodeType } from "../typed-data-encoder.ts";

/**
 * Golden vectors that every SDK (JavaScript, Elixir, Solidity tests) holds itself against. The hashes are viem's,
 * not our encoder's. `node protocol/vectors/generate.ts` writes the files, with `--check` it only compares them.
 * A change in a file is a change of the protocol: old signatures no longer mean what they did.
 */

type Hex = `0x${string}`;

/** Keys of the vectors alone: nothing of value ever hangs on them. */
const keys = {
  payer: `0x${"a1".repeat(32)}`,
  consumer: `0x${"b2".repeat(32)}`,
  provider: `0x${"c3".repeat(32)}`,
  meter: `0x${"d4".repeat(32)}`,
} as const;
const address = (who: keyof typeof keys) => privateKeyToAccount(keys[who]).address.toLowerCase();
const label = (text: string) => keccak256(toBytes(text));

const domain = escrowDomain({ chainId: 11155420, escrow: "0x00000000000000000000000000000000c0ffee01" });
const tokenDomain = {
  name: "USD Coin",
  version: "2",
  chainId: 11155420,
  verifyingContract: "0x5fd84259d66cd46123540766be93dfe6d43130d7",
} as const;

const terms = {
  payer: address("payer"),
  consumerSigner: address("consumer"),
  provider: "0x00000000000000000000000000000000000000f1",
  providerSigner: address("provider"),
  meter: address("meter"),
  feeRecipient: "0x00000000000000000000000000000000000000f2",
  feeBps: 500,
  upfront: "10000",
  unattended: "309485009821345068724781055",
  ratePerHour: "2500000",
  expiry: 1795000000,
  quote: label("quote 1"),
};

/** viem's types do not resolve over a struct that is only known at run time. */
function hashes(primaryType: StructName, message: Record<string, unknown>): { structHash: Hex; digest: Hex } {
  const widened: { types: Record<string, unknown>; primaryType: string } = { types, primaryType };
  return {
    structHash: hashStruct({ ...widened, data: message }),
    digest: hashTypedData({ ...widened, domain, message }),
  };
}

async function signatureOf(who: keyof typeof keys, hash: Hex) {
  const signature = await sign({ hash, privateKey: keys[who], to: "hex" });
  const compact = toCompact(signature);
  if (compact === null) throw new Error("viem signs low-s");
  return { by: who, signer: address(who), signature, compact };
}

async function typedData() {
  const leaseId = hashes("LeaseTerms", structs.LeaseTerms.parse(terms)).digest;
  const secondTerms = { ...terms, unattended: "0", quote: label("quote 2"), expiry: 1799999999 };
  const secondId = hashes("LeaseTerms", structs.LeaseTerms.parse(secondTerms)).digest;
  const parties = { payer: terms.payer, spender: terms.consumerSigner, meter: terms.meter };
  const receipt = {
    leaseId,
    job: label("job_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbb"),
    sequence: 1,
    attempt: 1,
    inputHash: label("input"),
    outputHashes: [label("output 0"), label("output 1")],
    node: address("provider"),
    gpu: "NVIDIA GeForce RTX 4090",
    billedMs: "7200",
    price: "5000",
    cumulative: "15000",
    endedAt: 1794000123,
  };
  const cases: [string, StructName, Record<string, unknown>, (keyof typeof keys)[]][] = [
    ["terms of a dedicated lease", "LeaseTerms", terms, []],
    ["terms of a serverless lease", "LeaseTerms", secondTerms, []],
    [
      "funding of two leases",
      "Funding",
      { leaseIds: [leaseId, secondId], amounts: ["5000000", "1"], salt: label("salt") },
      [],
    ],
    ["deposit", "Deposit", { ...parties, amount: "25000000", salt: label("salt") }, []],
    [
      "allocation",
      "Allocate",
      { leaseIds: [secondId], fundedTo: ["3000000"], validBefore: 1794000600 },
      ["consumer", "meter"],
    ],
    ["release", "Release", { ...parties, validBefore: 1794000600 }, ["payer", "meter"]],
    [
      "usage",
      "Usage",
      { leaseId, cumulative: "15000", evidence: label("evidence") },
      ["consumer", "provider", "meter"],
    ],
    [
      "usage of the largest amount",
      "Usage",
      { leaseId, cumulative: "309485009821345068724781055", evidence: `0x${"00".repeat(32)}` },
      ["provider"],
    ],
    ["allowance", "Allowance", { leaseId: secondId, cumulative: "1000000" }, ["consumer"]],
    [
      "close",
      "Close",
      { leaseId, cumulative: "15000", evidence: label("evidence"), validBefore: 1794000600 },
      ["provider", "meter"],
    ],
    ["exit", "Exit", { leaseId }, ["payer"]],
    ["revocation", "RevokeMeter", { meter: terms.meter }, ["meter"]],
    ["receipt with two outputs", "Receipt", receipt, ["provider"]],
    [
      "receipt without outputs, of a GPU beyond ASCII",
      "Receipt",
      {
        ...receipt,
        sequence: 4294967295,
        outputHashes: [],
        gpu: "Grafikkarte µ-1 🎮",
        billedMs: "18446744073709551615",
        price: "0",
      },
      ["provider"],
    ],
  ];
  const vectors = [];
  for (const [name, primaryType, message, signers] of cases) {
    const schema: z.ZodType<Record<string, unknown>> = structs[primaryType];
    const { structHash, digest } = hashes(primaryType, schema.parse(message));
    vectors.push({
      name,
      primaryType,
      encodeType: encodeType(primaryType, types[primaryType]),
      message,
      structHash,
      digest,
      ...(primaryType === "LeaseTerms" ? { leaseId: leaseIdOf(digest) } : {}),
      signatures: await Promise.all(signers.map((who) => signatureOf(who, digest))),
    });
  }

  const funding = vectors.find((vector) => vector.primaryType === "Funding");
  const authorization = {
    from: terms.payer,
    to: domain.verifyingContract,
    value: "5000001",
    validAfter: "0",
    validBefore: "1794000600",
    nonce: funding?.structHash,
  };
  const digest = hashTypedData({
    domain: tokenDomain,
    types: tokenTypes,
    primaryType: "ReceiveWithAuthorization",
    message: ReceiveWithAuthorization.parse(authorization),
  });
  return {
    about:
      "EIP-712 structs of the escrow; message is the JSON wire form. LeaseTerms: digest is the on-chain lease id, leaseId its short form. Funding and Deposit: structHash is the EIP-3009 nonce.",
    keys,
    domain,
    vectors,
    authorization: {
      domain: tokenDomain,
      encodeType: encodeType("ReceiveWithAuthorization", tokenTypes.ReceiveWithAuthorization),
      message: authorization,
      digest,
      signatures: [await signatureOf("payer", digest)],
    },
  };
}

function merkle() {
  const leaves = Array.from({ length: 11 }, (_, n) => label(`receipt ${n + 1}`));
  const frontiers = [emptyFrontier()];
  for (const leaf of leaves) frontiers.push(append(frontiers.at(-1) ?? emptyFrontier(), leaf));
  return {
    about:
      "RFC 6962 shape over keccak256: leaf keccak(0x00 || leaf), node keccak(0x01 || left || right), no leaves 32 zero bytes. Leaves are receipt digests.",
    leaves,
    trees: frontiers.map((frontier) => ({ ...frontier, root: root(frontier) })),
    proofs: [1, 2, 7, 11].flatMap((size) =>
      leaves
        .slice(0, size)
        .map((leaf, index) => ({ size, index, leaf, proof: proof(leaves.slice(0, size), index) })),
    ),
  };
}

const CREATED = 1794000000;
const EXPIRES_IN = 120;
const AUDIENCE = ["api.gpux.example", "localhost:8787"];

async function httpSignature() {
  const account = privateKeyToAccount(keys.consumer);
  const signer = accountSigner(account, domain.chainId);
  const text = (body: string) => new TextEncoder().encode(body);
  const cases: [string, string, string, Record<string, string>, Uint8Array<ArrayBuffer>][] = [
    ["GET", "GET", "https://api.gpux.example/v1/nodes", {}, text("")],
    [
      "GET with a query and the scheme's own port",
      "GET",
      "https://API.gpux.example:443/v1/offers?gpu=RTX%204090&limit=10",
      {},
      text(""),
    ],
    [
      "POST with an idempotency key",
      "POST",
      "https://api.gpux.example/v1/jobs",
      { "content-type": "application/json", "idempotency-key": "order-1" },
      text('{"function":"@gpux/mandelbrot@1","inputs":{"width":64}}'),
    ],
    [
      "PUT of bytes to another port",
      "PUT",
      "http://localhost:8787/v1/objects/x%2Fy?part=1&last",
      {},
      Uint8Array.from({ length: 256 }, (_, i) => i),
    ],
  ];
  const vectors = [];
  for (const [index, [name, method, url, headers, body]] of cases.entries()) {
    const nonce = `vector-nonce-${index}`;
    const request = new Request(url, { method, headers, ...(body.length > 0 ? { body } : {}) });
    const signed = await signRequest(request, signer, { created: CREATED, expiresInS: EXPIRES_IN, nonce });
    const parsed = parseSignature(signed.headers);
    const base = parsed.ok ? signatureBase(signed, parsed.value.components, parsed.value.input) : null;
    if (base === null) throw new Error("our own signature has no base");
    vectors.push({
      name,
      request: { method, url, headers, body: encodeBase64(body) },
      created: CREATED,
      expires: CREATED + EXPIRES_IN,
      nonce,
      base,
      hash: hashMessage({ raw: text(base) }),
      headers: Object.fromEntries(
        ["content-digest", "signature-input", "signature"].flatMap((field) => {
          const value = signed.headers.get(field);
          return value === null ? [] : [[field, value]];
        }),
      ),
    });
  }
  return {
    about:
      "ERC-8128 requests. body is base64; base is the RFC 9421 signature base, hash its EIP-191 hash; headers are those that signing adds.",
    privateKey: keys.consumer,
    address: account.address.toLowerCase(),
    chainId: domain.chainId,
    audience: AUDIENCE,
    vectors,
  };
}

/** Each file's name and its whole text. */
export async function vectorFiles(): Promise<Map<string, string>> {
  const files = {
    "typed-data": await typedData(),
    merkle: merkle(),
    "http-signature": await httpSignature(),
  };
  return new Map(
    Object.entries(files).map(([name, content]) => [`${name}.json`, `${JSON.stringify(content, null, 2)}\n`]),
  );
}

if (import.meta.main) {
  const checkOnly = process.argv.includes("--check");
  const stale: string[] = [];
  for (const [name, text] of await vectorFiles()) {
    const path = fileURLToPath(new URL(name, import.meta.url));
    if (!checkOnly) writeFileSync(path, text);
    else if (readFileSync(path, "utf8") !== text) stale.push(name);
  }
  if (stale.length > 0) {
    console.error(`Not what protocol/vectors/generate.ts makes: ${stale.join(", ")}`);
    process.exit(1);
  }
}
