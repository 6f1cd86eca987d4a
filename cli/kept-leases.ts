import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { escrowDomain, leaseIdHash } from "@gpux/protocol/eip712";
import { leaseIdOf } from "@gpux/protocol/ids";
import { KeptIntent, type KeptIntentWire } from "@gpux/protocol/kept";

/**
 * `leases/` in the config folder: a file for each lease that this machine has funded, written before the funding leaves.
 * Its terms are all that it takes to get the rest back without an edge (`gpux rescue`).
 */
const pathOf = (folder: string, id: string) => join(folder, "leases", `${id}.json`);

/** Under each lease that it funds. Readable by its owner alone; on the disk when it resolves. */
export async function keepLease(folder: string, funding: KeptIntentWire): Promise<void> {
  const { chain_id: chainId, escrow, intent } = KeptIntent.parse(funding);
  // Of one from credit it is the lease's reclaim: terms alone.
  if (intent.kind !== "fund" && intent.kind !== "reclaim") throw new TypeError("a funding names its terms");
  await mkdir(join(folder, "leases"), { recursive: true, mode: 0o700 });
  for (const terms of intent.kind === "fund" ? intent.terms : [intent.terms])
    await write(pathOf(folder, leaseIdOf(leaseIdHash(escrowDomain({ chainId, escrow }), terms))), funding);
}

async function write(path: string, funding: KeptIntentWire): Promise<void> {
  // Beside the old one, which a top-up replaces: a crash half-way must not lose the terms of a funded lease.
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(funding)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}

/** Null when this machine did not fund it. `id` as `lse_...`. */
export async function keptLease(folder: string, id: string): Promise<string | null> {
  return await readFile(pathOf(folder, id), "utf8").catch(() => null);
}
