import { addresses } from "@gpux/protocol/addresses";
import { WellKnown } from "@gpux/protocol/answers";
import { accountSigner, signRequest } from "@gpux/protocol/http-signature/erc8128";
import type { KeptIntentWire } from "@gpux/protocol/kept";
import type { Settlement } from "@gpux/protocol/lease";
import type { Account } from "./account.ts";
import { type AllowanceOptions, createAllowances } from "./allowances.ts";
import { keyConsumer } from "./consumer.ts";
import { type Credit, createCredit } from "./credit.ts";
import { GpuxError } from "./error.ts";
import { createIntents, type Intents } from "./intents.ts";
import type { AutoOpen } from "./job-dispatch.ts";
import { createJobs, type Jobs } from "./jobs.ts";
import { type OpenLeaseSession, openLeaseSession } from "./lease-session.ts";
import { createLeases, createQuotes, type Leases, type Quotes } from "./leases.ts";
import { createNodes, createOffers, type Nodes, type Offers } from "./nodes.ts";
import { createObjects, type Objects } from "./objects.ts";
import {
  createSessionUse,
  type KeptSession,
  type Session,
  type SessionOptions,
  type Sessions,
} from "./session.ts";
import type { SessionKeyPair } from "./session-key.ts";
import type { Dial } from "./socket-link.ts";
import { SYSTEM_TIMING, type Timing } from "./timing.ts";
import { createTransport } from "./transport.ts";
import { createWarmLeases } from "./warm-leases.ts";

export interface ClientOptions extends AllowanceOptions {
  /** The edge's address, such as `https://edge.example`; it is what requests are signed for. */
  readonly url: string;
  /** Signs requests and allowances: the consumer signer of the leases it opens, unless that is `consumer`. */
  readonly account: Account;
  /**
   * Signs allowances instead of the account, and stands in the terms of the leases it opens: a P-256 key (`newP256Key`),
   * which WebCrypto can keep to itself, so that no wallet is asked while jobs run. Keep it for as long as its leases. As
   * the key of `Client.session` it signs requests too. The account must then be the payer.
   */
  readonly consumer?: SessionKeyPair;
  /** Whose USDC funds the leases; the account itself by default. */
  readonly payer?: Account;
  /** Without it a job that no lease pays for is refused with `payment_required`. */
  readonly autoOpen?: AutoOpen;
  /** Base units: the most that allowances may let any one lease spend. What it was funded with by default. */
  readonly spendLimit?: bigint;
  /**
   * Chain, contract and token that are trusted. Without it: on chains whose escrow this version knows
   * (protocol/addresses.ts), that one; elsewhere the edge's own word (`/.well-known/gpux`).
   */
  readonly settlement?: Settlement;
  /** A session that was opened before (`Client.session`), to sign requests from the first on. */
  readonly session?: KeptSession;
  readonly fetch?: typeof fetch;
  /** Opens session sockets (`leases.session`); the platform's own WebSocket by default. */
  readonly dial?: Dial;
  /**
   * Called with each funding before it leaves (of one from credit with the lease's reclaim), and waited for: whoever keeps
   * it (its terms above all) gets the rest of the lease back without this edge (`gpux rescue`). When it throws, nothing is sent.
   */
  readonly keep?: (funding: KeptIntentWire) => void | Promise<void>;
  /** After the first try; 2 by default. */
  readonly maxRetries?: number;
  readonly timing?: Timing;
}

export interface Client {
  /** Chain, contract, meter and fee of this edge; asked once, held against the pinned settlement. */
  wellKnown(): Promise<WellKnown>;
  readonly objects: Objects;
  readonly quotes: Quotes;
  readonly leases: Omit<Leases, "adopt"> & OpenLeaseSession;
  readonly credit: Credit;
  readonly jobs: Jobs;
  readonly nodes: Nodes;
  readonly offers: Offers;
  readonly intents: Intents;
  /**
   * Opens a session, by one signature of the account, and lets its key sign what the session may do: the account is
   * asked no more for each request. It is renewed before its end. A revoked one throws `session_revoked` once; after
   * that the account signs again.
   */
  session(options: SessionOptions): Promise<Session>;
  readonly sessions: Sessions;
}

/**
 * A client of one edge.
 *
 * @example
 * const client = createClient({ url, account, autoOpen: { maxAmount: 1_000_000n } });
 * const job = await client.jobs.run({ function: sha256, inputs: { n: { number: 8 } }, max_price: 50_000n });
 * const png = await client.jobs.output(job, 0);
 */
export function createClient(options: ClientOptions): Client {
  const { account, url, timing = SYSTEM_TIMING } = options;
  const payer = options.payer ?? account;
  if (options.consumer !== undefined && payer.address !== account.address)
    throw new GpuxError({
      code: "request_invalid",
      title: "The account has no part in the leases",
      hint: "With a `consumer` key the account that signs requests must be the payer.",
      fault: "tenant",
    });
  const consumer = options.consumer === undefined ? account : keyConsumer(options.consumer);
  let cached: Promise<WellKnown> | null = null;

  const wellKnown = () => {
    cached ??= readWellKnown().catch((error) => {
      cached = null;
      throw error;
    });
    return cached;
  };

  async function readWellKnown(): Promise<WellKnown> {
    const answer = await transport.json(
      { method: "GET", path: "/.well-known/gpux", signed: false },
      WellKnown,
    );
    if (isTrusted(answer.settlement, options.settlement)) return answer;
    throw new GpuxError({
      code: "quote_mismatch",
      title: "The edge settles elsewhere than you trust",
      hint: "Check the address of the edge; another escrow than the known one has to be pinned (settlement).",
      detail: `it names escrow ${answer.settlement.escrow} on chain ${answer.settlement.chain_id}`,
    });
  }

  const transport = createTransport({
    url,
    timing,
    maxRetries: options.maxRetries ?? 2,
    fetch: options.fetch ?? ((request, init) => fetch(request, init)),
    async sign(request, by) {
      const bySession = by === "session" ? await session.sign(request) : null;
      return (
        bySession ?? signRequest(request, accountSigner(account, await chainId()), { now: timing.now() })
      );
    },
    recover: (error) => session.recover(error),
  });
  const chainId = async () => options.settlement?.chain_id ?? (await wellKnown()).settlement.chain_id;
  const session = createSessionUse({ transport, timing, chainId, kept: options.session ?? null });

  const warm = createWarmLeases();
  const spendLimit = options.spendLimit ?? null;
  const keep = options.keep ?? (() => {});
  const dial = options.dial ?? ((to: string, protocols: string[]) => new WebSocket(to, protocols));
  const shared = { transport, account: consumer, payer, timing, warm, wellKnown, spendLimit, keep };
  const quotes = createQuotes(shared);
  const leases = createLeases(shared);
  const ahead = options.allowAhead === undefined ? {} : { allowAhead: options.allowAhead };
  const allowances = createAllowances({ ...shared, leases, ...ahead });
  const autoOpen = options.autoOpen ?? null;
  const intents = createIntents(transport, timing);
  return {
    wellKnown,
    objects: createObjects(transport),
    quotes,
    leases: {
      ...leases,
      session: (id, given) => openLeaseSession({ ...shared, allowances, dial }, id, given),
    },
    credit: createCredit({ ...shared, intents, releasedBy: account }),
    jobs: createJobs({ ...shared, url, quotes, leases, allowances, autoOpen, by: account.address }),
    nodes: createNodes(transport),
    offers: createOffers(transport),
    intents,
    session: (given) => session.open(given),
    sessions: session.sessions,
  };
}

function isTrusted(named: Settlement, pinned: Settlement | undefined): boolean {
  if (pinned === undefined) {
    const known = addresses[named.chain_id];
    return known === undefined || (known.escrow === named.escrow && known.usdc === named.token);
  }
  return (
    pinned.chain_id === named.chain_id &&
    pinned.escrow.toLowerCase() === named.escrow &&
    pinned.token.toLowerCase() === named.token &&
    pinned.token_name === named.token_name &&
    pinned.token_version === named.token_version
  );
}
