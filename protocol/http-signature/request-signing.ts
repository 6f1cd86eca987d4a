import { encodeBase64Url } from "./base64url.ts";
import { digestField, sha256Of } from "./content-digest.ts";
import { isNonce, MAX_WINDOW_S, requiredComponents } from "./request-signature.ts";
import { signatureBase } from "./signature-base.ts";
import { serializeSignatureInput, writeSignature } from "./signature-fields.ts";

/** How a request gets its signature, whatever key makes it. */

const DEFAULT_LIFETIME_S = 60;

export type SignOptions = {
  /** Milliseconds since the epoch; the clock by default. */
  readonly now?: number;
  /** Seconds since the epoch; `now` by default. */
  readonly created?: number;
  /** At most 300, 60 by default. */
  readonly expiresInS?: number;
  /** 8 to 128 printable characters, never used before with this key; 16 random bytes by default. */
  readonly nonce?: string;
};

export interface BaseSigner {
  readonly label: string;
  readonly keyid: string;
  sign(base: Uint8Array): Promise<Uint8Array>;
}

/** A request before it is signed, but for its body: of that, the SHA-256. */
export interface UnsignedHead {
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
  /** Null where there is no body. */
  readonly sha256: Uint8Array | null;
}

/**
 * The headers with `Signature-Input`, `Signature` and, where there is a body, `Content-Digest`; earlier ones are
 * replaced. For who knows the hash of a large body and need not read it for that again. Throws a RangeError on a
 * lifetime or nonce that no server would take.
 */
export async function signedHeaders(
  { method, url, headers: unsigned, sha256 }: UnsignedHead,
  signer: BaseSigner,
  options: SignOptions,
): Promise<Headers> {
  const created = options.created ?? Math.floor((options.now ?? Date.now()) / 1000);
  const lifetime = options.expiresInS ?? DEFAULT_LIFETIME_S;
  if (!(lifetime > 0 && lifetime <= MAX_WINDOW_S)) throw new RangeError(`1 to ${MAX_WINDOW_S} seconds`);
  const nonce = options.nonce ?? encodeBase64Url(crypto.getRandomValues(new Uint8Array(16)));
  if (!isNonce(nonce)) throw new RangeError("a nonce has 8 to 128 printable characters");

  const headers = new Headers(unsigned);
  headers.delete("content-digest");
  if (sha256 !== null) headers.set("content-digest", digestField(sha256));
  const head = { method, url, headers, body: new Uint8Array() };
  const components = requiredComponents(head);
  const input = serializeSignatureInput(components, {
    created,
    expires: created + lifetime,
    nonce,
    keyid: signer.keyid,
  });
  const base = signatureBase(head, components, input);
  if (base === null) throw new TypeError("a header to be signed has characters that HTTP does not carry");
  const fields = writeSignature(signer.label, input, await signer.sign(new TextEncoder().encode(base)));
  headers.set("signature-input", fields.signatureInput);
  headers.set("signature", fields.signature);
  return headers;
}

/**
 * A copy of `request`, signed as {@link signedHeaders} says. The body is read whole. Sign last: changing method, URL,
 * body or Idempotency-Key afterwards voids the signature.
 */
export async function signedCopy(
  request: Request,
  signer: BaseSigner,
  options: SignOptions,
): Promise<Request> {
  const body = new Uint8Array(await request.clone().arrayBuffer());
  // An empty body that is present (`body: ""`) is digested too: other verifiers ask for it.
  const hasBody = body.length > 0 || Boolean(request.body);
  const { method, url, headers: unsigned } = request;
  const sha256 = hasBody ? await sha256Of(body) : null;
  const headers = await signedHeaders({ method, url, headers: unsigned, sha256 }, signer, options);
  return new Request(request, hasBody ? { headers, body } : { headers });
}
