import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { escrowDomain, LeaseTerms, leaseIdHash } from "@gpux/protocol/eip712";
import { type Address, Bytes32, LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import type { Place } from "@gpux/protocol/place";
import { BaseError, getAbiItem, type Log } from "viem";
import { keptLease } from "../kept-leases.ts";
import { ChainError, UsageError } from "../outcome.ts";
import type { Terminal } from "../terminal.ts";
import { say } from "../terminal.ts";
import type { Escrow } from "./escrow.ts";
import { papersIn, readPapers } from "./papers.ts";

/** What a person typed for a lease: an id, whose terms are to be found, or the terms themselves. */
export type LeaseArgument =
  | { readonly named: LeaseId; readonly hash: Bytes32 | null }
  | { readonly terms: LeaseTerms; readonly place: Place | null };

/** `lse_...` or the on-chain id; what this machine funded is looked up in `folder`. Else a file, or `-`. */
export async function leaseArgument(
  terminal: Terminal,
  folder: string,
  text: string,
): Promise<LeaseArgument> {
  const hash = Bytes32.safeParse(text);
  const id = hash.success ? leaseIdOf(hash.data) : LeaseId.safeParse(text).data;
  if (id === undefined) return onlyLease(await readPapers(terminal, text), text);
  const kept = await keptLease(folder, id);
  if (kept !== null) return onlyLease(papersIn(kept, `leases/${id}.json`), text, id);
  return { named: id, hash: hash.success ? hash.data : null };
}

/** `id`: of several that one signature funded, this one. */
function onlyLease(
  papers: Awaited<ReturnType<typeof readPapers>>,
  name: string,
  id: LeaseId | null = null,
): LeaseArgument {
  const all = papers
    .flatMap(({ terms, place }) => terms.map((each) => ({ terms: each, place })))
    .filter(({ terms, place }) => id === null || place === null || idOf(place, terms) === id);
  const [first, ...others] = all;
  if (first === undefined) throw new UsageError(`${name} names no lease`, "It has to hold a lease's terms.");
  // Several vouchers of one lease are one lease.
  if (others.some((each) => each.terms.quote !== first.terms.quote))
    throw new UsageError(`${name} names several leases`, "Name one of them, as lse_... or by its file.");
  return first;
}

function idOf(place: Place, terms: LeaseTerms): LeaseId {
  return leaseIdOf(leaseIdHash(escrowDomain(place), terms));
}

/** The lease's terms and its on-chain id in this escrow. */
export async function findLease(
  terminal: Terminal,
  place: Place,
  escrow: Escrow | null,
  argument: LeaseArgument,
  ownAddress: () => Promise<Address | null>,
): Promise<{ terms: LeaseTerms; hash: Bytes32 }> {
  const domain = escrowDomain(place);
  if ("terms" in argument) return { terms: argument.terms, hash: leaseIdHash(domain, argument.terms) };
  const { named, hash } = argument;
  if (escrow === null) throw new UsageError("No node of the chain is named", "Use --rpc.");
  const payer = hash === null ? await ownAddress() : null;
  if (hash === null && payer === null)
    throw new UsageError(
      `This machine has not funded ${named}, and ${named} is too short to be looked up on chain`,
      "Name it by its on-chain id (0x and 64 digits), by a file with its terms, or have its payer's wallet here.",
    );
  say(terminal, `Looking for ${hash ?? named} on chain ${escrow.place.chainId}`);
  const filter = hash === null ? { payer: payer ?? undefined } : { leaseId: hash };
  const isIt = (log: OpenedLog) => log.args.leaseId !== undefined && leaseIdOf(log.args.leaseId) === named;
  for await (const logs of openings(terminal, escrow, filter)) {
    const found = logs.find(isIt);
    if (found === undefined) continue;
    const { feeBps, expiry, ...rest } = found.args.terms ?? {};
    const terms = LeaseTerms.parse(
      Object.fromEntries(
        Object.entries({ ...rest, feeBps, expiry }).map(([name, value]) => [
          name,
          typeof value === "bigint" ? value.toString() : value,
        ]),
      ),
    );
    return { terms, hash: leaseIdHash(domain, terms) };
  }
  throw new ChainError(
    "unknown_lease",
    `${named} was never funded in ${escrow.place.escrow} on chain ${escrow.place.chainId}`,
    "Check --rpc, --escrow and the id.",
  );
}

const opened = getAbiItem({ abi: leaseEscrowAbi, name: "LeaseOpened" });
type OpenedLog = Log<bigint, number, false, typeof opened>;

/** The ranges that most nodes answer for. */
const CHUNK = 10_000n;
/** As many blocks of 2 s as the longest term and the delay after it have, and a margin. */
const LOOK_BACK = 4_000_000n;

/** All at once where the node allows it; else chunk by chunk, newest first. */
async function* openings(
  terminal: Terminal,
  { client, place }: Escrow,
  args: { payer?: Address | undefined; leaseId?: Bytes32 },
): AsyncGenerator<OpenedLog[]> {
  const ask = (fromBlock: bigint, toBlock: bigint) =>
    client.getLogs({ address: place.escrow, event: opened, args, fromBlock, toBlock });
  const latest = await client.getBlockNumber();
  const whole = await ask(0n, latest).catch((error: unknown) => {
    if (error instanceof BaseError) return null;
    throw error;
  });
  if (whole !== null) return yield whole;
  for (let to = latest; to >= 0n && latest - to < LOOK_BACK; to -= CHUNK) {
    if ((latest - to) % (50n * CHUNK) === 0n) say(terminal, `  back to block ${to}`);
    yield await ask(to < CHUNK ? 0n : to - CHUNK + 1n, to);
  }
}
