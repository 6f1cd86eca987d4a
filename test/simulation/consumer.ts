import type { Caller, Outcome, PaymentNeeded } from "@gpux/durable-objects/interfaces";
import { movedTo } from "@gpux/durable-objects/moved";
import type { Address, JobId, LeaseId } from "@gpux/protocol/ids";
import { type JobRequest, TERMINAL } from "@gpux/protocol/job";
import type { SessionId } from "@gpux/protocol/session";
import { jobIdFor } from "./account-object.ts";
import { Actor, type Flow, Unreachable } from "./actor.ts";
import { Buyer } from "./buyer.ts";
import { askWhereItIs } from "./moved.ts";
import type { Purse } from "./purse.ts";
import type { Random } from "./random.ts";
import type { JobSeen } from "./seen.ts";
import { askAs, type SessionHabits, SessionKeys } from "./session-keys.ts";
import { type LeaseDoor, type Setting, sleep } from "./setting.ts";
import type { Truth } from "./truth.ts";
import { type Order, together, Wishes } from "./wishes.ts";

/** What only some consumers have. */
export interface Means {
  readonly purse: Purse | null;
  /** How it goes about sessions; null: it grants none. */
  readonly sessions: SessionHabits | null;
  /** Choices of one who loses count of what it has been answered; null: it does not. */
  readonly repeats: Random | null;
}

/** Somebody who wants jobs done and does not always wait for answers. Its notes survive; what it is doing does not. */
export class Consumer extends Actor {
  readonly address: Address;
  readonly #setting: Setting;
  readonly #truth: Truth;
  readonly #random: Random;
  readonly #buyer: Buyer;
  /** Null: its wallet signs everything. */
  readonly #keys: SessionKeys | null;
  readonly #repeats: Random | null;
  readonly #wishes: Wishes;
  readonly #orders: Order[] = [];
  readonly #meanPauseMs: number;
  /** Makes no new requests; those under way still end. */
  isDone = false;

  constructor(
    address: Address,
    setting: Setting,
    truth: Truth,
    random: Random,
    meanPauseMs: number,
    { purse, sessions, repeats }: Means,
  ) {
    super(`consumer ${address.slice(2, 4)}`);
    this.address = address;
    this.#setting = setting;
    this.#truth = truth;
    this.#random = random;
    this.#meanPauseMs = meanPauseMs;
    this.#buyer = new Buyer(this, address, setting, random, purse);
    this.#repeats = repeats;
    this.#keys = sessions === null ? null : new SessionKeys(this, address, setting, sessions);
    this.#wishes = new Wishes(address, setting, truth, random, this.#buyer, this.#keys);
  }

  start(): void {
    this.run(this.#live(), () => {});
  }

  /** The program dies and is started again with its notes. */
  restart(): void {
    this.crash();
    this.start();
  }

  *#live(): Flow<void> {
    while (!this.isDone) {
      yield* sleep(this.#setting.schedule, this.#random.wait(this.#meanPauseMs), `${this.name} acts`);
      if (this.isDone) return;
      // Impatient people do two things at once.
      this.run(this.#act(), () => {});
    }
  }

  #act(): Flow<void> {
    const granting = this.#keys?.act() ?? null;
    if (granting !== null) return granting;
    const spending = this.#buyer.spend();
    if (spending !== null) return spending;
    const repeating = this.#repeat();
    if (repeating !== null) return repeating;
    const dice = this.#random.next();
    // Nobody asks a full market for more all the time.
    if (this.#buyer.leases.length === 0 && dice >= 0.4) return this.#again();
    const { isScattered } = this.#setting;
    const [few, many] = isScattered ? [0.25, 0.02] : [0.08, 0.02];
    if (this.#buyer.leases.length === 0 || dice < (this.#buyer.leases.length < 3 ? few : many))
      return !isScattered && this.#random.chance(0.25) ? this.#buyer.openTogether() : this.#buyer.open();
    if (dice < 0.6) return this.#newOrder();
    if (dice < 0.7) return this.#again();
    if (dice < 0.8) return this.#cancel();
    if (dice < 0.88) return this.#buyer.topUp();
    if (dice < 0.93) return this.#read();
    if (dice < 0.97) return this.#otherBody();
    return this.#close();
  }

  /** Everything that it has open is closed: nobody leaves the simulation without paying. */
  *closeAll(): Flow<void> {
    for (const { id } of this.#buyer.leases) {
      const lease = this.#setting.lease(id);
      yield* this.#setting.network.call(this, lease, "close", () => lease.close(this.address), true);
    }
  }

  #newOrder(): Flow<void> {
    const { order, nextInMs } = this.#wishes.draw();
    this.#orders.push(...together(order));
    if (nextInMs !== null) this.run(this.#newOrderIn(nextInMs), () => {});
    return this.#submit(order);
  }

  *#newOrderIn(ms: number): Flow<void> {
    yield* sleep(this.#setting.schedule, ms, `${this.name} goes on`);
    if (!this.isDone && this.#buyer.leases.length > 0) yield* this.#newOrder();
  }

  *#submit(order: Order): Flow<void> {
    const { network, schedule } = this.#setting;
    for (let tries = 0; tries < 4; tries += 1) {
      try {
        const answer = yield* this.#askTogether(together(order));
        if (answer.ok) {
          for (const [i, job] of answer.jobs.entries()) this.#acknowledge(together(order)[i] ?? order, job);
          return;
        }
        if ("credit" in answer && answer.credit !== undefined) this.#openBy(order, answer);
        else if ("allowance" in answer && answer.allowance !== undefined)
          this.#allow(together(order)[0] ?? order, answer.allowance);
        else if ("quote" in answer && answer.quote !== undefined) yield* this.#buyer.fund(answer.quote);
        else return this.#refused(order, answer.code);
      } catch (error) {
        // What breaks a rule comes this way as well.
        if (!(error instanceof Unreachable)) throw error;
        if (this.#random.chance(0.3)) return;
        yield* sleep(schedule, network.weather.meanDelay + this.#random.wait(1_500), "tries again");
      }
    }
  }

  /** A lease that is over is not asked again. */
  #refused(order: Order, code: string): void {
    if (code !== "lease_closed" && code !== "lease_unknown") return;
    const at = this.#buyer.leases.findIndex(({ id }) => id === order.lease);
    if (at >= 0 && this.#random.chance(0.7)) this.#buyer.leases.splice(at, 1);
  }

  /** JOB-10: an array on its lease; of one alone as its account or lease takes it. */
  *#askTogether(orders: readonly Order[]): Flow<Outcome<{ jobs: readonly JobSeen[] }> | PaymentNeeded> {
    const [first] = orders;
    if (first === undefined) return { ok: true, jobs: [] };
    const { lease: at, session, waitMs, number } = first;
    if (orders.length === 1 || at === null) {
      const answer = yield* this.#ask(first, first.request);
      return answer.ok ? { ok: true, jobs: [answer.job] } : answer;
    }
    const { network } = this.#setting;
    const lease = this.#setting.lease(at);
    const asked = orders.map(({ key, request }) => ({ id: this.#idOn(at, key), request }));
    const ask = (as: Caller) =>
      network.call(this, lease, `array ${number}`, () => lease.submitAll(as, asked, waitMs), true);
    return yield* this.#askAs(session, lease, ask);
  }

  #idOn(lease: LeaseId, key: string): JobId {
    return jobIdFor(lease, this.address, `key:${key}`);
  }

  #askAs<Answer extends object>(
    session: SessionId | null,
    lease: LeaseDoor,
    ask: (as: Caller) => Flow<Answer>,
  ) {
    const account = this.#setting.account(this.address);
    return askAs(this.address, session, ask, (by, needs) =>
      this.#setting.network.call(
        this,
        account,
        "admit session",
        () => account.admitSession(by, lease.id, needs),
        true,
      ),
    );
  }

  *#ask(
    order: Order,
    request: JobRequest,
  ): Flow<Outcome<{ job: JobSeen; replayed: boolean }> | PaymentNeeded> {
    const { network } = this.#setting;
    const { key, demand } = order;
    if (order.lease === null) {
      const account = this.#setting.account(this.address);
      const { payer, opening } = order;
      const bodyHash = `${order.number} ${request.allowance?.signature ?? ""} ${opening.funding?.signature ?? ""}`;
      const routed = { ...request, ...(payer === null ? {} : { payer }), ...opening, demand };
      return yield* network.call(
        this,
        account,
        `job ${order.number}`,
        () => account.submit(this.address, key, bodyHash, routed, order.waitMs, order.session),
        true,
      );
    }
    const lease = this.#setting.lease(order.lease);
    const id = this.#idOn(order.lease, key);
    const what = `job ${order.number}`;
    const ask = (as: Caller) =>
      network.call(this, lease, what, () => lease.submit(as, id, request, order.waitMs), true);
    const answer = yield* this.#askAs(order.session, lease, ask);
    const to = movedTo(answer);
    if (to === null) return answer;
    const found = yield* this.#askWhereItIs(to, "job", (door) => door.job(this.address, id));
    return found.ok ? { ...found, replayed: true } : found;
  }

  #askWhereItIs<Answer extends object>(
    first: LeaseId,
    what: string,
    ask: (door: LeaseDoor) => Flow<Answer>,
  ): Flow<Answer> {
    return askWhereItIs(first, (id) => {
      const door = this.#setting.lease(id);
      return this.#setting.network.call(this, door, what, () => ask(door), true);
    });
  }

  #acknowledge(order: Order, job: JobSeen): void {
    this.#setting.watch.acknowledged(this.address, order.key, order.acknowledged?.id ?? null, job);
    if (order.acknowledged === null || TERMINAL.has(job.status)) order.acknowledged = job;
    // Not where that is no longer so (ACK-5): what a crash took has begun again since, for whoever asked again.
    const isStale = job.at < (this.#truth.begunAgain.get(job.id) ?? 0);
    if (!isStale && TERMINAL.has(job.status) && !this.#truth.toldEnds.has(job.id))
      this.#truth.toldEnds.set(job.id, job.status);
    const known = this.#truth.acknowledged.get(job.id);
    if (known === undefined)
      this.#truth.acknowledged.set(job.id, {
        lease: job.lease,
        at: this.#setting.schedule.now,
        number: order.number,
      });
  }

  /** Signs what is asked for, and at times for the jobs to come as well. */
  #allow(order: Order, asked: { readonly lease_hash: string; readonly cumulative: string }): void {
    const opened = this.#buyer.leases.find((each) => each.hash === asked.lease_hash);
    if (opened === undefined) return;
    const { hasher, keyring } = this.#setting;
    const [share, ahead] = this.#setting.isScattered ? [0.9, 1_000_000n] : [0.4, 100_000n];
    const cumulative = BigInt(asked.cumulative) + (this.#random.chance(share) ? ahead : 0n);
    const digest = hasher.allowance({ leaseId: opened.hash, cumulative });
    this.#setting.watch.allowed(opened.hash, cumulative);
    order.request = {
      ...order.request,
      allowance: { cumulative, signature: keyring.sign(this.address, digest) },
    };
  }

  /** CRD-5: the same request again opens the lease from credit and brings the allowance. */
  #openBy(order: Order, { quote, credit, allowance }: PaymentNeeded): void {
    if (quote === undefined || credit === undefined || allowance === undefined) return;
    const funding = this.#buyer.accept(quote, credit);
    if (funding === null) return;
    order.opening = { lease: quote.lease_id, funding };
    this.#allow(order, allowance);
  }

  /** The same request under the same key, however the first went. */
  *#again(): Flow<void> {
    if (this.#orders.length === 0) return;
    const order = this.#random.pick(this.#orders);
    yield* this.#submit(order);
  }

  /** Asks its account again for what that has answered already, whatever it has opened since. */
  #repeat(): Flow<void> | null {
    if (this.#repeats?.chance(0.3) !== true) return null;
    const answered = this.#orders.filter(
      ({ lease, acknowledged }) => lease === null && acknowledged !== null,
    );
    if (answered.length === 0) return null;
    const order = this.#repeats.pick(answered);
    return this.#submit(order);
  }

  /** The key of another request: it must not make a job of its own, nor change the first. */
  *#otherBody(): Flow<void> {
    const known = this.#orders.filter((order) => order.acknowledged !== null);
    if (known.length === 0) return;
    const order = this.#random.pick(known);
    const request = { ...order.request, inputs: { n: { number: order.number + 1_000_000 } } };
    const other = { ...order, number: order.number + 1_000_000, request };
    const answer = yield* this.#ask(other, request);
    if (order.acknowledged !== null) this.#setting.watch.reused(order.key, order.acknowledged.id, answer);
  }

  *#cancel(): Flow<void> {
    const known = this.#orders.flatMap(({ acknowledged: job }) =>
      job === null || TERMINAL.has(job.status) ? [] : [job],
    );
    if (known.length === 0) return;
    const { id, lease } = this.#random.pick(known.slice(-4));
    const answer = yield* this.#askWhereItIs(lease, "cancel", (door) => door.cancel(this.address, id));
    if (answer.ok && !this.#truth.canceled.has(id)) this.#truth.canceled.set(id, this.#setting.schedule.now);
  }

  *#close(): Flow<void> {
    const { id } = this.#random.pick(this.#buyer.leases);
    const lease = this.#setting.lease(id);
    yield* this.#setting.network.call(this, lease, "close", () => lease.close(this.address), true);
  }

  /** Reads a job's events in pieces, as one who lost the connection does. */
  *#read(): Flow<void> {
    const known = this.#orders.flatMap(({ acknowledged }) => (acknowledged === null ? [] : [acknowledged]));
    if (known.length === 0) return;
    const { id, lease } = this.#random.pick(known);
    let door = this.#setting.lease(lease);
    let after = 0;
    for (let piece = 0; piece < 2; piece += 1) {
      const from = after;
      if (piece > 0) {
        // Its lines go on where it is by now.
        const found = yield* this.#askWhereItIs(lease, "job", (each) => each.job(this.address, id));
        if (found.ok) door = this.#setting.lease(found.job.lease);
      }
      const answer = yield* this.#setting.network.call(this, door, "events", () =>
        door.events(this.address, id, from),
      );
      if (!answer.ok) return;
      this.#setting.watch.read(id, after, answer.events);
      after = answer.events.at(-1)?.id ?? after;
    }
  }

  /** Jobs that it was told of. */
  known(): readonly JobId[] {
    return this.#orders.flatMap(({ acknowledged }) => (acknowledged === null ? [] : [acknowledged.id]));
  }
}
