import { accountSigner, signRequest, verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import type { SignedRequest } from "@gpux/protocol/http-signature/request-signature";
import { signSessionRequest, verifySessionRequest } from "@gpux/protocol/http-signature/session";
import { createSeal } from "@gpux/protocol/http-signature/session-token";
import { keyAccount } from "@gpux/protocol/key-account";
import { SessionKey, sessionIdOf } from "@gpux/protocol/session";
import { recoverSigner } from "@gpux/protocol/signature";
import { privateKeyToAccount } from "viem/accounts";
import { hashTypedData, recoverAddress, verifyTypedData } from "viem/utils";

/** `GET /NAME?n=N` does the named check N times; 500 with the text when one of them comes out wrong. */

const KEY = `0x${"4a".repeat(32)}` as const;
const ALLOWANCE = {
  domain: { name: "GPUX", version: "1", chainId: 10, verifyingContract: `0x${"e5".repeat(20)}` },
  types: {
    Allowance: [
      { name: "leaseId", type: "bytes32" },
      { name: "cumulative", type: "uint128" },
    ],
  },
  primaryType: "Allowance",
  message: { leaseId: `0x${"11".repeat(32)}`, cumulative: 5_000_000n },
} as const;
const CHAIN_ID = 10;
const URL_OF_EDGE = "https://edge.test/v1/leases/lse_x/jobs";

type Check = () => Promise<boolean>;
type Made = Awaited<ReturnType<typeof crypto.subtle.generateKey>>;
type Pair = Extract<Made, { privateKey: unknown }>;

function isPair(made: Made): made is Pair {
  return "privateKey" in made;
}

async function webCrypto(algorithm: { name: string; namedCurve?: string; hash?: string }): Promise<Check> {
  const made = await crypto.subtle.generateKey(
    algorithm.name === "HMAC" ? { name: "HMAC", hash: "SHA-256" } : algorithm,
    true,
    ["sign", "verify"],
  );
  const pair = isPair(made) ? made : { privateKey: made, publicKey: made };
  const message = crypto.getRandomValues(new Uint8Array(300));
  const signature = await crypto.subtle.sign(algorithm, pair.privateKey, message);
  // As a request comes: the key as raw bytes beside it.
  const raw = await crypto.subtle.exportKey("raw", pair.publicKey);
  return async () => {
    const key = await crypto.subtle.importKey("raw", raw, algorithm, false, ["verify"]);
    return crypto.subtle.verify(algorithm, key, signature, message);
  };
}

async function received(request: Request): Promise<SignedRequest> {
  const { method, url, headers } = request;
  return { method, url, headers, body: new Uint8Array(await request.arrayBuffer()) };
}

const post = () =>
  new Request(URL_OF_EDGE, { method: "POST", body: JSON.stringify({ function: "ab".repeat(32) }) });
const policy = () => ({ now: Date.now(), audience: ["edge.test"], chainId: CHAIN_ID });

async function walletRequest(): Promise<Check> {
  const request = await received(
    await signRequest(post(), accountSigner(keyAccount(KEY), CHAIN_ID), { expiresInS: 300 }),
  );
  return async () => (await verifyRequest(request, policy())).ok;
}

async function sessionRequest(): Promise<Check> {
  const seal = createSeal(`bench:${"5e".repeat(32)}`);
  const made = await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"]);
  if (!isPair(made)) throw new Error("signature keys come in pairs");
  const { kty, crv, x } = Object.fromEntries(
    Object.entries(await crypto.subtle.exportKey("jwk", made.publicKey)),
  );
  const id = sessionIdOf(crypto.getRandomValues(new Uint8Array(16)));
  const token = await seal.seal({
    v: 1,
    id,
    address: `0x${"aa".repeat(20)}`,
    key: SessionKey.parse({ kty, crv, x }),
    scopes: ["read", "jobs"],
    cap: 1_000_000n,
    expires: Math.floor(Date.now() / 1_000) + 86_400,
    audience: "edge.test",
    chain: CHAIN_ID,
  });
  const sign = async (bytes: Uint8Array) =>
    new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, made.privateKey, bytes.slice()));
  const request = await received(await signSessionRequest(post(), { id, token, sign }, { expiresInS: 300 }));
  return async () => (await verifySessionRequest(request, { ...policy(), seal })).ok;
}

/** Each makes what it checks first; that is not measured, for a warm-up call comes before. */
const CHECKS: Readonly<Record<string, () => Promise<Check>>> = {
  async "viem-verify"() {
    const { address } = privateKeyToAccount(KEY);
    const signature = await privateKeyToAccount(KEY).signTypedData(ALLOWANCE);
    return () => verifyTypedData({ ...ALLOWANCE, address, signature });
  },
  async "noble-recover"() {
    const hash = hashTypedData(ALLOWANCE);
    const { address, ...account } = privateKeyToAccount(KEY);
    const signature = await account.sign({ hash });
    return async () => (await recoverAddress({ hash, signature })) === address;
  },
  async "wasm-recover"() {
    const hash = hashTypedData(ALLOWANCE);
    const account = keyAccount(KEY);
    const signature = await account.sign({ hash });
    const address = account.address.toLowerCase();
    return async () => (await recoverSigner(hash, signature)) === address;
  },
  "ed25519-verify": () => webCrypto({ name: "Ed25519" }),
  "p256-verify": () => webCrypto({ name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }),
  "hmac-verify": () => webCrypto({ name: "HMAC", hash: "SHA-256" }),
  "wallet-request": walletRequest,
  "session-request": sessionRequest,
  async "noble-sign"() {
    const account = privateKeyToAccount(KEY);
    const hash = hashTypedData(ALLOWANCE);
    return async () => (await account.sign({ hash })).length === 132;
  },
  async "wasm-sign"() {
    const account = keyAccount(KEY);
    const hash = hashTypedData(ALLOWANCE);
    return async () => (await account.sign({ hash })).length === 132;
  },
};

const made = new Map<string, Check>();

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const name = pathname.slice(1);
    const make = CHECKS[name];
    if (make === undefined) return Response.json(Object.keys(CHECKS));
    const check = made.get(name) ?? (await make());
    made.set(name, check);
    for (let n = Number(searchParams.get("n")); n > 0; n -= 1)
      if (!(await check())) return new Response(`${name} came out wrong`, { status: 500 });
    return new Response("ok");
  },
};
