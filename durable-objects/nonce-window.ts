/**
 * The replay window of one object: a signature's nonce is good once, until the signature has expired anyway.
 * Nonces are remembered for {@link SKEW_MS} longer than they say, because the verifier allows that much clock skew.
 */
export const SKEW_MS = 30_000;

/** Put this step into the object's migrations. */
export const NONCE_TABLE =
  "CREATE TABLE nonces (signer TEXT NOT NULL, nonce TEXT NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (signer, nonce)) WITHOUT ROWID";

/**
 * True once per (signer, nonce), false for a replay. `expires` in seconds, as the signature says; `now` in ms.
 * Expired rows go as a side effect, so that the table stays as small as the traffic of one window.
 */
export function takeNonce(
  sql: SqlStorage,
  signature: { signer: string; nonce: string; expires: number },
  now: number,
): boolean {
  sql.exec("DELETE FROM nonces WHERE expires_at < ?", now);
  const taken = sql.exec(
    "INSERT INTO nonces (signer, nonce, expires_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
    signature.signer,
    signature.nonce,
    signature.expires * 1000 + SKEW_MS,
  );
  return taken.toArray().length === 1;
}
