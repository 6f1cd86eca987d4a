import { type AllocationRefusal, AllocationRequest } from "@gpux/protocol/attestation";
import { LeaseTerms } from "@gpux/protocol/eip712";
import type { JobId } from "@gpux/protocol/ids";
import { Intent, type IntentAnswer, SettleIntent } from "@gpux/protocol/intent";
import { wireOf } from "@gpux/protocol/wire";
import { z } from "zod";
import type { ObjectEnv } from "../bindings.ts";
import type { Outcome } from "../interfaces.ts";
import { paidForTime } from "./billing.ts";
import type { Duty } from "./duties.ts";
import type { Event } from "./machine.ts";
import { carriedOf } from "./moves.ts";
import type { Lease } from "./state.ts";

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 30_000;
/** A job waits for the node's GPUs or for another lease, or the consumer for its money. */
const LAST_EAGER_RETRY_MS = 5_000;
const EAGER: ReadonlySet<Duty["t"]> = new Set(["node_rouse", "node_dial", "places", "move"]);
/** Longer than a duty usually takes, short enough for one that a crash interrupted. */
const STAND_BY_MS = 5_000;

/** What duties need of the lease that its state does not say. */
interface Around {
  /** Jobs whose end a client's own socket waits for here. */
  awaited(): readonly JobId[];
  /** The highest number in the journal. */
  lastEvent(): number;
}

/**
 * Carries out duties: one call each, then the event that its answer is. Which are under way and when the others may
 * be tried again lives in memory only; the duties themselves are derived from the lease, so a crash loses nothing.
 */
export class Errands {
  readonly #env: ObjectEnv;
  readonly #around: Around;
  readonly #running = new Set<string>();
  readonly #retry = new Map<string, { tries: number; at: number }>();

  constructor(env: ObjectEnv, around: Around) {
    this.#env = env;
    this.#around = around;
  }

  /**
   * When the alarm must see to these duties; infinity when there are none. One that is under way counts too: this
   * life may end before its answer comes, and the next one knows of it only if something wakes it.
   */
  nextTry(duties: readonly Duty[], now: number): number {
    return duties.reduce(
      (at, { key }) =>
        Math.min(at, this.#running.has(key) ? now + STAND_BY_MS : (this.#retry.get(key)?.at ?? 0)),
      Number.POSITIVE_INFINITY,
    );
  }

  /** Starts what is due. Each answer comes back through `report`; one that changed nothing is tried again later. */
  start(lease: Lease, duties: readonly Duty[], now: number, report: (event: Event | null) => void): void {
    for (const key of this.#retry.keys())
      if (duties.every((duty) => duty.key !== key)) this.#retry.delete(key);
    for (const duty of duties) {
      if (this.#running.has(duty.key) || (this.#retry.get(duty.key)?.at ?? 0) > now) continue;
      this.#running.add(duty.key);
      void this.#run(lease, duty, report);
    }
  }

  async #run(lease: Lease, duty: Duty, report: (event: Event | null) => void): Promise<void> {
    const tries = this.#retry.get(duty.key)?.tries ?? 0;
    const answered = await this.#perform(lease, duty).catch((error: unknown) => {
      console.error(
        JSON.stringify({ event: "errand_failed", lease: lease.id, duty: duty.key, error: String(error) }),
      );
      return null;
    });
    this.#running.delete(duty.key);
    // An answer that leaves the duty standing (pending, refused, unreachable) must not be asked for in a tight loop.
    const most = EAGER.has(duty.t) ? LAST_EAGER_RETRY_MS : LAST_RETRY_MS;
    const at = Date.now() + Math.min(most, FIRST_RETRY_MS * 2 ** tries);
    this.#retry.set(duty.key, { tries: tries + 1, at });
    report(answered);
  }

  /** One try of a duty; `null` when the answer is to ask again. */
  async #perform(lease: Lease, duty: Duty): Promise<Event | null> {
    switch (duty.t) {
      case "relay": {
        const answer = await this.#env.RELAYER.submit(z.encode(Intent, duty.intent));
        return answeredBy(duty.intent, answer);
      }
      case "watch": {
        const answer = await this.#env.RELAYER.submit(z.encode(Intent, duty.intent));
        return watchedBy(duty.intent, answer);
      }
      case "allocate":
        return this.#allocate(duty);
      case "hold": {
        const { cumulative } = duty.voucher;
        const answer = await this.#env.RELAYER.hold(z.encode(SettleIntent, duty.voucher));
        // One that it refuses is worth nothing more than one that it has; the next one is another.
        if (answer.status === "rejected") warn("hold_refused", lease, answer.code);
        return { t: "held", cumulative };
      }
      case "meter_open": {
        const answer = await this.#env.METER.open({
          terms: z.encode(LeaseTerms, lease.terms),
          openedAt: duty.openedAt,
        });
        return answer.ok ? { t: "errand", done: "metered" } : refusedByMeter(lease, answer.code);
      }
      case "attest": {
        const answer = await this.#env.METER.attest(wireOf(duty.request));
        if (!answer.ok) return refusedByMeter(lease, answer.code);
        return {
          t: "attested",
          sequence: duty.sequence,
          usage: answer.usageSignature,
          close: answer.closeSignature ?? null,
        };
      }
      case "node_open": {
        const answer = await this.#env.NODE.getByName(lease.terms.providerSigner).open(lease.id, lease.terms);
        if (answer.ok) return { t: "errand", done: "opened" };
        return answer.code === "quote_expired"
          ? { t: "node_refused", detail: "its reservation has lapsed" }
          : null;
      }
      case "node_rest":
        await this.#env.NODE.getByName(lease.terms.providerSigner).rest(lease.id, duty.turn);
        return { t: "capacity", turn: duty.turn, blocker: null };
      case "node_rouse": {
        const answer = await this.#env.NODE.getByName(lease.terms.providerSigner).rouse(lease.id, duty.turn);
        return rousedBy(duty.turn, answer);
      }
      case "node_dial":
        // Its answer is the agent's hello.
        await this.#env.NODE.getByName(lease.terms.providerSigner).dial(lease.id);
        return null;
      case "node_release":
        await this.#env.NODE.getByName(lease.terms.providerSigner).release(
          lease.id,
          paidForTime(lease, lease.settled),
        );
        return { t: "errand", done: "released" };
      case "places": {
        // Whoever made the quote is one of them, if not both.
        const accounts = new Set([lease.terms.consumerSigner, lease.terms.payer]);
        const known = await Promise.all(
          Array.from(accounts, (each) => this.#env.ACCOUNT.getByName(each).places(lease.id)),
        );
        return { t: "places", leases: [...new Set(known.flat())], awaited: this.#around.awaited() };
      }
      case "move": {
        const carried = duty.jobs.map((job) => carriedOf(lease, job));
        const answer = await this.#env.LEASE.getByName(duty.to).adopt(carried, this.#around.lastEvent());
        return { t: "moved", to: duty.to, taken: answer.taken, declined: answer.declined };
      }
    }
  }

  /** Asked for each time: the meter signs the same again, so that nothing of it has to be kept. */
  async #allocate({ funding, request }: Extract<Duty, { t: "allocate" }>): Promise<Event | null> {
    const cosigned = await this.#env.METER.allocate(z.encode(AllocationRequest, request));
    if (!cosigned.ok) return { t: "relay_refused", kind: "allocate", funding, ...refusalOf(cosigned) };
    const intent: Intent = { kind: "allocate", ...request, meterSignature: cosigned.signature };
    return answeredBy(intent, await this.#env.RELAYER.submit(z.encode(Intent, intent)), funding);
  }
}

function refusalOf({ code, detail }: AllocationRefusal) {
  return { code, detail };
}

/** What a node's answer to a lease that wants its GPUs again is to the machine. */
export function rousedBy(turn: number, answer: Outcome): Event {
  if (answer.ok) return { t: "capacity", turn, blocker: null };
  if (answer.code === "quote_expired") return { t: "node_refused", detail: "it no longer knows the lease" };
  const known = answer.code === "node_offline" || answer.code === "node_draining";
  return { t: "capacity", turn, blocker: known ? answer.code : "gpus" };
}

/** What an answer of the relayer's is to the machine; `null` while it is pending. `funding`: which, of an allocation. */
export function answeredBy(intent: Intent, answer: IntentAnswer, funding?: string): Event | null {
  const { kind } = intent;
  const which = {
    ...(intent.kind === "fund" ? { funding: intent.salt } : {}),
    ...(intent.kind === "withdraw" ? { account: intent.account } : {}),
    ...(funding === undefined ? {} : { funding }),
  };
  if (answer.status === "done") return { t: "relayed", kind, ...which, answer };
  if (answer.status === "pending") return null;
  return { t: "relay_refused", kind, ...which, code: answer.code, detail: answer.detail };
}

/** LSE-14: what was on chain once, and is not done now, a reorganisation has taken. */
export function watchedBy(intent: Intent, answer: IntentAnswer): Event {
  return (answer.status === "done" ? answeredBy(intent, answer) : null) ?? { t: "unfunded" };
}

function refusedByMeter(lease: Lease, code: string): null {
  warn("meter_refused", lease, code);
  return null;
}

function warn(event: string, lease: Lease, code: string): void {
  console.error(JSON.stringify({ event, lease: lease.id, code }));
}
