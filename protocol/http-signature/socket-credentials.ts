import { z } from "zod";
import { CLIENT_PROTOCOL } from "../client-frames.ts";
import { decodeBase64Url, encodeBase64Url } from "./base64url.ts";
import { SESSION_HEADER } from "./session-token.ts";

/**
 * Credentials of a WebSocket upgrade for clients that cannot set header fields on one, as browsers: the fields of the
 * signature, as a subprotocol `gpux.auth.<base64url of JSON>` beside the one that is spoken. They are over the GET that
 * the upgrade is, and good once.
 */
const PREFIX = "gpux.auth.";
/** A session's token, a signature and its parameters come to about 1,500. */
const MAX_LENGTH = 4_096;

const Fields = z.strictObject({
  "signature-input": z.string(),
  signature: z.string(),
  [SESSION_HEADER]: z.string().exactOptional(),
});

/** The subprotocols to ask for, from the signed GET of the same URL. */
export function socketProtocols(signed: Request): string[] {
  const fields = Object.fromEntries(
    Object.keys(Fields.shape).flatMap((name) => {
      const value = signed.headers.get(name);
      return value === null ? [] : [[name, value]];
    }),
  );
  const text = new TextEncoder().encode(JSON.stringify(Fields.parse(fields)));
  return [CLIENT_PROTOCOL, `${PREFIX}${encodeBase64Url(text)}`];
}

export type Upgrade =
  | { readonly ok: true; readonly request: Request; readonly speaks: boolean }
  | { readonly ok: false };

/**
 * The upgrade with its credentials where every request has them; `speaks`: our subprotocol was asked for. Not ok when
 * the credentials cannot be read, or stand in both places.
 */
export function upgradeWithCredentials(request: Request): Upgrade {
  const offered = (request.headers.get("sec-websocket-protocol") ?? "").split(",").map((each) => each.trim());
  const speaks = offered.includes(CLIENT_PROTOCOL);
  const credentials = offered.filter((each) => each.startsWith(PREFIX));
  const [only] = credentials;
  if (only === undefined) return { ok: true, request, speaks };
  const fields =
    credentials.length === 1 && only.length <= MAX_LENGTH ? read(only.slice(PREFIX.length)) : null;
  const headers = new Headers(request.headers);
  if (fields === null || headers.has("signature")) return { ok: false };
  for (const [name, value] of Object.entries(fields)) headers.set(name, value);
  return { ok: true, request: new Request(request, { headers }), speaks };
}

function read(text: string): Record<string, string> | null {
  const bytes = decodeBase64Url(text);
  if (bytes === null) return null;
  try {
    const fields = Fields.parse(
      JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes)),
    );
    // Only what a header field may carry: a line break in one would throw where it is set.
    return Object.values(fields).every((value) => /^[\t -~]*$/.test(value)) ? fields : null;
  } catch {
    return null;
  }
}
