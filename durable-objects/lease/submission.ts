import { consumerOf } from "@gpux/protocol/consumer-signature";
import type { JobId } from "@gpux/protocol/ids";
import { inputHash } from "@gpux/protocol/job";
import type { Caller, Outcome, PaymentNeeded, Refused } from "../interfaces.ts";
import type { Moved } from "../moved.ts";
import { paymentNeeded } from "./answers.ts";
import { batchHash, highestAllowance } from "./batch.ts";
import { hasherOf } from "./billing.ts";
import type { Job } from "./job-state.ts";
import { type Arrival, isSame } from "./jobs.ts";
import type { Event, Step } from "./machine.ts";
import type { LeaseSessions } from "./sessions.ts";
import type { State } from "./state.ts";

/** What taking jobs in needs of the lease around it, as it is at that moment. */
export interface Shell {
  readonly state: State | null;
  readonly sessions: LeaseSessions;
  mayNot(as: Caller): Refused | null;
  /** In memory or in the rows. */
  job(id: JobId): Job | null;
  apply(event: Event, mayFollow: true): Step;
}

export type Asked = Pick<Arrival, "job" | "clientId" | "retryOf" | "request">;

/** An allowance that is to count, and which of the jobs brought it. */
type Offered = NonNullable<ReturnType<typeof highestAllowance>>;

interface Judged {
  readonly ok: true;
  /** Those that are not known; none: all of them are. */
  readonly fresh: readonly Arrival[];
  /** Whose signature is to be checked before it counts; null where there is none. */
  readonly offered: Offered | null;
}

/** Whether these jobs may be asked for, but for the signature of the allowance that they bring. */
export function judge(shell: Shell, as: Caller, arrivals: readonly Arrival[]): Judged | Refused | Moved {
  const refusal = shell.mayNot(as);
  const { state } = shell;
  if (state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
  const fresh: Arrival[] = [];
  for (const arrival of arrivals) {
    const known = shell.job(arrival.job);
    if (known === null) fresh.push(arrival);
    else if (!isSame(known, arrival)) return { ok: false, code: "idempotency_key_reused" };
    else if (known.move?.gone) return { ok: false, code: "job_moved", lease: known.move.to };
  }
  if (fresh.length === 0) return { ok: true, fresh, offered: null };
  const { lease } = state;
  if (typeof as !== "string" && as.bearer && lease.terms.unattended > 0n)
    return {
      ok: false,
      code: "forbidden",
      detail: "the edge knows this session's key, and the lease spends without the consumer's signature",
    };
  const offered = highestAllowance(arrivals.map(({ request }) => request));
  const isHigher = offered !== null && offered.allowance.cumulative > (lease.allowance?.cumulative ?? 0n);
  return { ok: true, fresh, offered: isHigher ? offered : null };
}

/** Tells the machine in one step what was judged; the allowance's signature is the consumer's. */
export function take(
  shell: Shell,
  as: Caller,
  arrivals: readonly Arrival[],
  { fresh, offered }: Judged,
  together: boolean,
): Outcome | PaymentNeeded {
  const { state } = shell;
  if (state === null) return { ok: false, code: "lease_unknown" };
  const session = typeof as === "string" ? null : as.session;
  const sum = fresh.reduce((total, { request }) => total + request.max_price, 0n);
  const needs = session === null ? null : shell.sessions.needs(session, sum);
  if (needs !== null) return { ok: false, code: "session_cap_exceeded", needs };

  const [only] = fresh;
  const event: Event =
    !together && only !== undefined
      ? { t: "submit", ...only }
      : { t: "submit_all", arrivals: fresh, allowance: offered?.allowance ?? null };
  const result = shell.apply(event, true);
  if (!result.ok) {
    const refused = result.index === undefined ? undefined : fresh[result.index];
    const index = arrivals.findIndex(({ job }) => job === refused?.job);
    return { ...paymentNeeded(state, result), ...(index < 0 ? {} : { index }) };
  }
  if (session !== null)
    for (const { job, request } of fresh) shell.sessions.take(session, job, request.max_price);
  return { ok: true };
}

/**
 * Takes a job, or `together` all of several or none: checks who asks, the allowance's signature and the session's cap,
 * then tells the machine in one step. Those that are known are passed over; `replayed`: all of them were. A crash may
 * have taken a part of a batch that was answered (ACK-5), which then comes again.
 */
export async function takeIn(
  shell: Shell,
  as: Caller,
  asked: readonly Asked[],
  together: boolean,
): Promise<Outcome<{ replayed: boolean }> | PaymentNeeded> {
  const hashed = await Promise.all(
    asked.map(async (each) => ({ ...each, inputHash: await inputHash(each.request) })),
  );
  const batch = together ? await batchHash(hashed.map((each) => each.inputHash)) : null;
  const session = typeof as === "string" ? null : as.session;
  const arrivals = hashed.map((each) => {
    const before = each.retryOf == null ? null : shell.job(each.retryOf);
    return { ...each, batch, session, checkpoint: before?.checkpoint ?? null };
  });
  const judged = judge(shell, as, arrivals);
  if (!judged.ok) return judged;
  if (judged.fresh.length === 0) return { ok: true, replayed: true };
  const { lease } = shell.state ?? {};
  if (judged.offered !== null && lease !== undefined) {
    const { allowance, index } = judged.offered;
    const { cumulative, signature } = allowance;
    const digest = hasherOf(lease.place).allowance({ leaseId: lease.hash, cumulative });
    if ((await consumerOf(digest, signature)) !== lease.terms.consumerSigner)
      return { ok: false, code: "allowance_invalid", ...(together ? { index } : {}) };
  }
  const taken = take(shell, as, arrivals, judged, together);
  return taken.ok ? { ok: true, replayed: false } : taken;
}
