import type { Outcome } from "@gpux/durable-objects/interfaces";
import type { Duty } from "@gpux/durable-objects/lease/duties";
import type { Event } from "@gpux/durable-objects/lease/machine";
import { carriedOf } from "@gpux/durable-objects/lease/moves";
import type { Lease } from "@gpux/durable-objects/lease/state";
import type { LeaseId } from "@gpux/protocol/ids";
import type { Intent, IntentAnswer } from "@gpux/protocol/intent";
import { type Actor, type Flow, settled, Unreachable } from "./actor.ts";
import type { Setting } from "./setting.ts";

/** As in durable-objects/lease/errands.ts. */
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 30_000;
const STAND_BY_MS = 5_000;
const LAST_EAGER_RETRY_MS = 5_000;
const EAGER: ReadonlySet<Duty["t"]> = new Set(["node_rouse", "node_dial", "places", "move"]);

/** Carries out a lease's duties, one call each, as durable-objects/lease/errands.ts does; all of it is memory. */
export class Errands {
  readonly #lease: Actor;
  readonly #setting: Setting;
  readonly #lastEvent: () => number;
  readonly #running = new Set<string>();
  readonly #retry = new Map<string, { tries: number; at: number }>();

  /** `lastEvent`: the highest number in the lease's journal. */
  constructor(lease: Actor, setting: Setting, lastEvent: () => number) {
    this.#lease = lease;
    this.#setting = setting;
    this.#lastEvent = lastEvent;
  }

  nextTry(duties: readonly Duty[], now: number): number {
    return duties.reduce(
      (at, { key }) =>
        Math.min(at, this.#running.has(key) ? now + STAND_BY_MS : (this.#retry.get(key)?.at ?? 0)),
      Number.POSITIVE_INFINITY,
    );
  }

  start(lease: Lease, duties: readonly Duty[], report: (event: Event | null) => void): void {
    const { now } = this.#setting.schedule;
    for (const key of this.#retry.keys())
      if (duties.every((duty) => duty.key !== key)) this.#retry.delete(key);
    for (const duty of duties) {
      if (this.#running.has(duty.key) || (this.#retry.get(duty.key)?.at ?? 0) > now) continue;
      this.#running.add(duty.key);
      const tries = this.#retry.get(duty.key)?.tries ?? 0;
      this.#lease.run(this.#perform(lease, duty), (answered) => {
        this.#running.delete(duty.key);
        const most = EAGER.has(duty.t) ? LAST_EAGER_RETRY_MS : LAST_RETRY_MS;
        const at = this.#setting.schedule.now + Math.min(most, FIRST_RETRY_MS * 2 ** tries);
        this.#retry.set(duty.key, { tries: tries + 1, at });
        report(answered.ok ? answered.value : null);
      });
    }
  }

  *#perform(lease: Lease, duty: Duty): Flow<Event | null> {
    const { network, relayer, meter } = this.#setting;
    const me = this.#lease;
    switch (duty.t) {
      case "relay": {
        const { intent } = duty;
        const answer = yield* network.call(
          me,
          relayer,
          `relay ${intent.kind}`,
          () => relayer.submit(intent),
          true,
        );
        return answeredBy(intent, answer);
      }
      case "watch": {
        const { intent } = duty;
        const answer = yield* network.call(me, relayer, "watch fund", () => relayer.submit(intent), true);
        return answer.status === "done" ? answeredBy(intent, answer) : { t: "unfunded" };
      }
      case "allocate":
        return yield* this.#allocate(duty);
      case "hold":
        yield* network.call(me, relayer, "hold voucher", () => relayer.hold(duty.voucher), true);
        return { t: "held", cumulative: duty.voucher.cumulative };
      case "meter_open": {
        const { openedAt } = duty;
        yield* network.call(me, meter, "open", () => settled(meter.open(lease.terms, openedAt)), true);
        return { t: "errand", done: "metered" };
      }
      case "attest": {
        const { request, sequence } = duty;
        const answer = yield* network.call(me, meter, "attest", () => settled(meter.attest(request)), true);
        this.#setting.watch.attestAnswered(lease, answer.ok ? null : answer.code);
        if (!answer.ok) return null;
        return {
          t: "attested",
          sequence,
          usage: answer.usageSignature,
          close: answer.closeSignature ?? null,
        };
      }
      case "node_open": {
        const node = this.#setting.node(lease.terms.providerSigner);
        const answer = yield* network.call(me, node, "open", () => node.open(lease.id, lease.terms), true);
        if (answer.ok) return { t: "errand", done: "opened" };
        return answer.code === "quote_expired"
          ? { t: "node_refused", detail: "its reservation has lapsed" }
          : null;
      }
      case "node_release": {
        const node = this.#setting.node(lease.terms.providerSigner);
        yield* network.call(me, node, "release", () => node.release(lease.id), true);
        return { t: "errand", done: "released" };
      }
      case "node_rest": {
        const node = this.#setting.node(lease.terms.providerSigner);
        yield* network.call(me, node, "rest", () => node.rest(lease.id, duty.turn), true);
        return { t: "capacity", turn: duty.turn, blocker: null };
      }
      case "node_rouse": {
        const node = this.#setting.node(lease.terms.providerSigner);
        const answer = yield* network.call(me, node, "rouse", () => node.rouse(lease.id, duty.turn), true);
        return rousedBy(duty.turn, answer);
      }
      case "node_dial": {
        const node = this.#setting.node(lease.terms.providerSigner);
        yield* network.call(me, node, "dial", () => node.dial(lease.id), true);
        return null;
      }
      case "places": {
        const leases: LeaseId[] = [];
        for (const each of new Set([lease.terms.consumerSigner, lease.terms.payer])) {
          const account = this.#setting.account(each);
          leases.push(...(yield* network.call(me, account, "places", () => account.places(lease.id), true)));
        }
        return { t: "places", leases: [...new Set(leases)], awaited: [] };
      }
      case "move": {
        const { to } = duty;
        const carried = duty.jobs.map((job) => carriedOf(lease, job));
        const door = this.#setting.lease(to);
        const last = this.#lastEvent();
        try {
          const answer = yield* network.call(me, door, "adopt", () => door.adopt(carried, last), true);
          return { t: "moved", to, ...answer };
        } catch (error) {
          if (this.#setting.machines.shell.asksAgain || !(error instanceof Unreachable)) throw error;
          return { t: "moved", to, taken: [], declined: carried.map(({ job }) => job) };
        }
      }
    }
  }

  /** CRD-1: the meter signs its half first, each time that it is asked for. */
  *#allocate({ funding, request }: Extract<Duty, { t: "allocate" }>): Flow<Event | null> {
    const { network, relayer, meter } = this.#setting;
    const me = this.#lease;
    const cosign = () => settled(meter.allocate(request));
    const cosigned = yield* network.call(me, meter, "allocate", cosign, true);
    if (!cosigned.ok) {
      const { code, detail } = cosigned;
      return { t: "relay_refused", kind: "allocate", funding, code, detail };
    }
    const intent: Intent = { kind: "allocate", ...request, meterSignature: cosigned.signature };
    const answer = yield* network.call(me, relayer, "relay allocate", () => relayer.submit(intent), true);
    return answeredBy(intent, answer, funding);
  }
}

function rousedBy(turn: number, answer: Outcome): Event {
  if (answer.ok) return { t: "capacity", turn, blocker: null };
  if (answer.code === "quote_expired") return { t: "node_refused", detail: "it no longer knows the lease" };
  const known = answer.code === "node_offline" || answer.code === "node_draining";
  return { t: "capacity", turn, blocker: known ? answer.code : "gpus" };
}

function answeredBy(intent: Intent, answer: IntentAnswer, funding?: string): Event | null {
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
