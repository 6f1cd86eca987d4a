import { SessionKey } from "@gpux/protocol/session";

/** The key of a session, in WebCrypto. */
export interface SessionKeyPair {
  readonly publicJwk: SessionKey;
  /** Over the bytes: Ed25519, or ECDSA on P-256 with SHA-256 as `r s`. */
  sign(message: Uint8Array): Promise<Uint8Array>;
}

const ALGORITHMS = {
  OKP: { name: "Ed25519" },
  EC: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
} as const;
type Kind = keyof typeof ALGORITHMS;
type Pair = Extract<Awaited<ReturnType<typeof crypto.subtle.generateKey>>, { privateKey: unknown }>;

/** A new key that never leaves WebCrypto: Ed25519, or P-256 in browsers that lack it. */
export async function newSessionKey(): Promise<SessionKeyPair> {
  return keyPairOf(await newPair(false));
}

/** A new P-256 key that never leaves WebCrypto: it may be a lease's consumer too (`ClientOptions.consumer`). */
export async function newP256Key(): Promise<SessionKeyPair> {
  return keyPairOf(await makePair("EC", false));
}

/** As {@link newSessionKey}, with its private JSON Web Key to be kept: as secret as what the session may spend. */
export async function newExportableSessionKey(): Promise<SessionKeyPair & { privateJwk: JsonWebKeyText }> {
  const pair = await newPair(true);
  const privateJwk = JSON.stringify(await crypto.subtle.exportKey("jwk", pair.privateKey));
  return { ...(await keyPairOf(pair)), privateJwk };
}

/** A private JSON Web Key as text. */
export type JsonWebKeyText = string;

/** From {@link newExportableSessionKey}'s `privateJwk`. Throws when it is none. */
export async function readSessionKey(privateJwk: JsonWebKeyText): Promise<SessionKeyPair> {
  const jwk = JSON.parse(privateJwk);
  const publicJwk = publicPart(jwk);
  const algorithm = ALGORITHMS[kindOf(publicJwk)];
  const privateKey = await crypto.subtle.importKey("jwk", jwk, algorithm, false, ["sign"]);
  return { publicJwk, sign: signer(algorithm, privateKey) };
}

async function makePair(kind: Kind, extractable: boolean): Promise<Pair> {
  const made = await crypto.subtle.generateKey(ALGORITHMS[kind], extractable, ["sign", "verify"]);
  if (!("privateKey" in made)) throw new TypeError("signature keys come in pairs");
  return made;
}

async function newPair(extractable: boolean): Promise<Pair> {
  try {
    return await makePair("OKP", extractable);
  } catch (error) {
    // Web Cryptography, 18.4.4: an algorithm that is not registered. Anything else is a failure of the platform.
    if (error instanceof Error && error.name === "NotSupportedError") return makePair("EC", extractable);
    throw error;
  }
}

async function keyPairOf({ publicKey, privateKey }: Pair): Promise<SessionKeyPair> {
  const publicJwk = publicPart(await crypto.subtle.exportKey("jwk", publicKey));
  return { publicJwk, sign: signer(ALGORITHMS[kindOf(publicJwk)], privateKey) };
}

function publicPart({
  kty,
  crv,
  x,
  y,
}: {
  kty?: unknown;
  crv?: unknown;
  x?: unknown;
  y?: unknown;
}): SessionKey {
  return SessionKey.parse(kty === "EC" ? { kty, crv, x, y } : { kty, crv, x });
}

function kindOf({ kty }: SessionKey): Kind {
  if (kty === "oct") throw new TypeError("a key pair is no shared secret");
  return kty;
}

function signer(algorithm: (typeof ALGORITHMS)[Kind], key: Pair["privateKey"]): SessionKeyPair["sign"] {
  return async (message) => new Uint8Array(await crypto.subtle.sign(algorithm, key, message.slice()));
}
