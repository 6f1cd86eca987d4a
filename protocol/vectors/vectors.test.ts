import { readFileSync } from "node:fs";
import { privateKeyToAccount } from "viem/accounts";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  authorizationDigest,
  depositNonce,
  digest,
  EscrowDomain,
  fundingNonce,
  leaseIdHash,
  ReceiveWithAuthorization,
  structs,
  TokenDomain,
} from "../eip712.ts";
import { accountSigner, formatKeyId, signRequest, verifyRequest } from "../http-signature/erc8128.ts";
import { decodeBase64 } from "../http-signature/structured-fields.ts";
import { Bytes32, HexBytes, leaseIdOf } from "../ids.ts";
import { append, emptyFrontier, Frontier, root, verifyProof } from "../merkle.ts";
import { CompactSignature, fromCompact, recoverSigner, serializeCompact, toCompact } from "../signature.ts";
import { createHasher } from "../typed-data-encoder.ts";
import { vectorFiles } from "./generate.ts";
import httpSignature from "./http-signature.json" with { type: "json" };
import merkle from "./merkle.json" with { type: "json" };
import typedData from "./typed-data.json" with { type: "json" };

test("the files are what the generator makes", async () => {
  for (const [name, text] of await vectorFiles()) {
    expect(readFileSync(new URL(name, import.meta.url), "utf8"), name).toBe(text);
  }
});

const SignatureVector = z.object({ signer: z.string(), signature: HexBytes, compact: CompactSignature });

async function expectSignatures(hash: Bytes32, signatures: readonly unknown[]) {
  for (const one of signatures.map((vector) => SignatureVector.parse(vector))) {
    expect(toCompact(one.signature)).toEqual(one.compact);
    expect(fromCompact(one.compact)).toBe(one.signature);
    expect(await recoverSigner(hash, one.signature)).toBe(one.signer);
    expect(await recoverSigner(hash, serializeCompact(one.compact))).toBe(one.signer);
  }
}

describe("typed data", () => {
  const domain = EscrowDomain.parse(typedData.domain);
  const hasher = createHasher({ chainId: domain.chainId, escrow: domain.verifyingContract });

  const by =
    <T>(schema: z.ZodType<T>, ...hashes: ((struct: T) => Bytes32)[]) =>
    (wire: unknown) => {
      const struct = schema.parse(wire);
      expect(z.encode(schema, struct), "the wire form survives").toEqual(wire);
      return hashes.map((hash) => hash(struct));
    };
  /** By both of our implementations; struct hashes for the two that are never signed. */
  const hashed: Record<string, (wire: unknown) => Bytes32[]> = {
    LeaseTerms: by(structs.LeaseTerms, hasher.leaseTerms, (terms) => leaseIdHash(domain, terms)),
    Funding: by(structs.Funding, hasher.fundingNonce, fundingNonce),
    Deposit: by(structs.Deposit, hasher.depositNonce, depositNonce),
    Allocate: by(structs.Allocate, hasher.allocate, (struct) => digest(domain, "Allocate", struct)),
    Release: by(structs.Release, hasher.release, (struct) => digest(domain, "Release", struct)),
    Usage: by(structs.Usage, hasher.usage, (struct) => digest(domain, "Usage", struct)),
    Allowance: by(structs.Allowance, hasher.allowance, (struct) => digest(domain, "Allowance", struct)),
    Close: by(structs.Close, hasher.close, (struct) => digest(domain, "Close", struct)),
    Exit: by(structs.Exit, hasher.exit, (struct) => digest(domain, "Exit", struct)),
    RevokeMeter: by(structs.RevokeMeter, hasher.revokeMeter, (struct) =>
      digest(domain, "RevokeMeter", struct),
    ),
    Receipt: by(structs.Receipt, hasher.receipt, (struct) => digest(domain, "Receipt", struct)),
  };

  test.each(typedData.vectors)("$name", async (vector) => {
    const unsigned = ["Funding", "Deposit"].includes(vector.primaryType);
    const expected = unsigned ? vector.structHash : vector.digest;
    expect(hashed[vector.primaryType]?.(vector.message)).toEqual([expected, expected]);
    await expectSignatures(Bytes32.parse(vector.digest), vector.signatures);
  });

  test("cover every struct", () => {
    expect(new Set(typedData.vectors.map((vector) => vector.primaryType))).toEqual(
      new Set(Object.keys(structs)),
    );
  });

  test.each(typedData.vectors.filter((vector) => "leaseId" in vector))("short id of $name", (vector) => {
    expect(leaseIdOf(Bytes32.parse(vector.digest))).toBe(vector.leaseId);
  });

  test("authorization in the token's domain", async () => {
    const { domain: token, message, digest: expected, signatures } = typedData.authorization;
    const hash = authorizationDigest(TokenDomain.parse(token), ReceiveWithAuthorization.parse(message));
    expect(hash).toBe(expected);
    await expectSignatures(hash, signatures);
  });
});

describe("merkle", () => {
  const leaves = merkle.leaves.map((leaf) => Bytes32.parse(leaf));

  test("frontiers and roots", () => {
    let frontier = emptyFrontier();
    for (const tree of merkle.trees) {
      const { root: expected, ...state } = tree;
      expect(Frontier.parse(state)).toEqual(frontier);
      expect(root(frontier)).toBe(expected);
      const next = leaves[frontier.size];
      if (next !== undefined) frontier = append(frontier, next);
    }
    expect(frontier.size).toBe(leaves.length);
  });

  test.each(merkle.proofs)("proof of $index in $size", ({ size, index, leaf, proof }) => {
    const path = proof.map((sibling) => Bytes32.parse(sibling));
    const expected = Bytes32.parse(merkle.trees[size]?.root);
    expect(verifyProof(expected, Bytes32.parse(leaf), index, size, path)).toBe(true);
  });
});

describe("HTTP signature", () => {
  const { address, chainId, audience } = httpSignature;
  const signer = accountSigner(privateKeyToAccount(Bytes32.parse(httpSignature.privateKey)), chainId);

  test.each(httpSignature.vectors)("$name", async (vector) => {
    const { method, url } = vector.request;
    const body = decodeBase64(vector.request.body) ?? new Uint8Array();
    const own = Object.entries(vector.request.headers);
    const request = new Request(url, {
      method,
      headers: own,
      ...(body.length > 0 ? { body: body.slice() } : {}),
    });
    const { created, expires, nonce } = vector;
    const signed = await signRequest(request, signer, { created, expiresInS: expires - created, nonce });
    const added = Object.entries(vector.headers);
    for (const [name, value] of added) expect(signed.headers.get(name), name).toBe(value);

    const headers = new Headers([...own, ...added]);
    const policy = { now: created * 1000, audience, chainId };
    expect(await verifyRequest({ method, url, headers, body }, policy)).toEqual({
      ok: true,
      address,
      nonce,
      keyId: formatKeyId(chainId, address),
      created,
      expires,
    });
  });
});
