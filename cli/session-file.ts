import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Address } from "@gpux/protocol/ids";
import { SessionId } from "@gpux/protocol/session";
import { type KeptSession, readSessionKey } from "@gpux/sdk";
import { z } from "zod";

/** `session.json` in the config folder: the session that `gpux session open` keeps for the commands after it. */
const SessionFile = z.strictObject({
  url: z.url(),
  address: Address,
  id: SessionId,
  token: z.string(),
  /** A private JSON Web Key: it may act within the session's scopes, and no further. */
  key: z.string(),
  expires_at: z.iso.datetime(),
});
export type SessionFile = z.output<typeof SessionFile>;

const pathOf = (folder: string) => join(folder, "session.json");

/** Readable by its owner alone; in the place of an earlier one. Throws on what would not be read again. */
export async function keepSession(
  folder: string,
  fields: Record<keyof SessionFile, string>,
): Promise<string> {
  const session = SessionFile.parse(fields);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = pathOf(folder);
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(session)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  return path;
}

/** Null when there is none, or none that can be read: then the wallet signs, as if there never had been one. */
export async function readSession(folder: string): Promise<SessionFile | null> {
  const text = await readFile(pathOf(folder), "utf8").catch(() => null);
  if (text === null) return null;
  try {
    return SessionFile.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** The kept session as the SDK takes it; null when it is over, or of another edge or wallet. */
export async function keptSession(
  folder: string,
  url: string,
  address: string,
  now: number,
): Promise<KeptSession | null> {
  const file = await readSession(folder);
  if (file === null || new URL(file.url).origin !== new URL(url).origin) return null;
  const expiresAt = Date.parse(file.expires_at);
  if (file.address !== address.toLowerCase() || expiresAt <= now) return null;
  return { id: file.id, token: file.token, key: await readSessionKey(file.key), expiresAt };
}

export async function forgetSession(folder: string): Promise<void> {
  await rm(pathOf(folder), { force: true });
}
