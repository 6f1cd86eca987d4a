import { asOf, type FrameBody } from "@gpux/agent/link/frames";
import {
  initialLink,
  type LinkEnd,
  type LinkEvent,
  type LinkState,
  stepLink,
} from "@gpux/agent/link/machine";
import {
  due,
  enqueue,
  type Outbox,
  outboxOf,
  said,
  synced,
  type Unacknowledged,
} from "@gpux/agent/link/outbox";
import { FRAME_VERSION } from "@gpux/protocol/frames";
import type { Actor, Flow } from "./actor.ts";
import type { Connection, End } from "./network.ts";
import type { Timer } from "./schedule.ts";
import type { Setting, Upgrade } from "./setting.ts";

interface Frame {
  readonly t: string;
  readonly seq: number;
  readonly ack: number;
}

/** Where a link keeps what must survive its agent; the control link keeps nothing. */
export interface LinkStore {
  sent(seq: number, body: FrameBody): void;
  acknowledged(seq: number): void;
  dealt(seq: number): void;
  synced(then: () => void): void;
}

export interface LinkOptions<Up, Down extends Frame> {
  readonly agent: Actor;
  readonly setting: Setting;
  readonly name: string;
  /** The object at the other end; asked once the dial has reached it. */
  readonly dial: (end: End<Down>) => {
    readonly actor: Actor;
    readonly upgrade: () => Upgrade<Connection<Up, Down>>;
  };
  /** From the wire's form: what no schema fits is a bug of the agent's. */
  readonly parse: (wire: object) => Up;
  readonly hello: () => FrameBody;
  readonly onWelcome: (frame: Extract<Down, { t: "welcome" }>) => void;
  readonly preface?: (body: FrameBody) => FrameBody | null;
  readonly onFrame: (frame: Exclude<Down, { t: "welcome" | "ack" }>) => Flow<void>;
  readonly onEnd: (end: LinkEnd) => void;
  /** It was up and is not any more; the edge was last heard at this time. */
  readonly onDown?: (heardAt: number) => void;
  readonly resume?: {
    readonly frames: readonly Unacknowledged[];
    readonly nextSeq: number;
    readonly dealt: number;
  };
  readonly store?: LinkStore;
}

const ACK_DELAY_MS = 20;

/** The shell of agent/link/socket.ts over the same machine and outbox, in virtual time. */
export class Link<Up, Down extends Frame> {
  readonly #options: LinkOptions<Up, Down>;
  #state: LinkState = initialLink;
  #wake: Timer | null = null;
  #ackTimer: Timer | null = null;
  #connection: Connection<Up, Down> | null = null;
  #outbox: Outbox;
  #left = 0;
  #older = 0;
  #received: number;
  #heardAt = 0;
  #dealt: number;
  readonly #queue: Exclude<Down, { t: "welcome" | "ack" }>[] = [];
  #dealing = false;
  /** Raised by every dial: an upgrade that comes too late is nobody's. */
  #dials = 0;

  constructor(options: LinkOptions<Up, Down>) {
    this.#options = options;
    this.#outbox = outboxOf(options.resume?.frames ?? [], options.resume?.nextSeq ?? 1);
    this.#received = options.resume?.dealt ?? 0;
    this.#dealt = this.#received;
  }

  get isUp(): boolean {
    return this.#state.state === "up";
  }

  start(): void {
    this.#apply({ type: "tick" });
  }

  stop(): void {
    this.#apply({ type: "stop" });
  }

  /** The process died. */
  die(objectHearsAfter: number | null): void {
    this.#wake?.cancel();
    this.#ackTimer?.cancel();
    this.#connection?.lostByAgent(objectHearsAfter);
    this.#connection = null;
    this.#state = { state: "ended", end: { reason: "stopped", detail: "crash" } };
  }

  /** The wire breaks now. */
  cut(agentAfter: number | null, objectAfter: number | null): void {
    this.#connection?.cut(agentAfter, objectAfter);
  }

  /** Answers its seq. */
  send(body: FrameBody, durable = false): number {
    const { store } = this.#options;
    const seq = this.#outbox.nextSeq;
    const held = durable && store !== undefined;
    this.#outbox = enqueue(this.#outbox, body, held);
    store?.sent(seq, body);
    if (held) this.#releaseWhenSynced(seq);
    else this.#pump();
    return seq;
  }

  #releaseWhenSynced(seq: number): void {
    this.#options.store?.synced(() => {
      this.#outbox = synced(this.#outbox, seq);
      this.#pump();
    });
  }

  tell(body: FrameBody): void {
    if (this.#state.state === "up") this.#put(0, body);
  }

  #apply(event: LinkEvent): void {
    const { schedule, random } = this.#options.setting;
    const before = this.#state;
    if (event.type === "heard") this.#heardAt = schedule.now;
    const step = stepLink(before, event, schedule.now, random.next());
    this.#state = step.next;
    if (before.state === "up" && step.next.state !== "up") this.#options.onDown?.(this.#heardAt);
    this.#wake?.cancel();
    this.#wake = null;
    if (step.wakeAt !== null)
      this.#wake = schedule.at(
        step.wakeAt,
        `${this.#options.name} tick`,
        () => this.#apply({ type: "tick" }),
        false,
      );
    for (const effect of step.effects) {
      if (effect === "dial") this.#dial();
      else if (effect === "hello") {
        this.#left = this.#outbox.acked;
        this.#put(0, this.#options.hello());
      } else if (effect === "ping") {
        if (this.#connection?.alive === true) this.#apply({ type: "heard" });
      } else if (effect === "close") {
        this.#connection?.closeByAgent(1000);
        this.#connection = null;
      } else {
        this.#connection?.lostByAgent(random.int(1_000, 120_000));
        this.#connection = null;
      }
    }
    if (this.#state.state !== "ended" || before.state === "ended") return;
    this.#ackTimer?.cancel();
    this.#options.onEnd(this.#state.end);
  }

  #dial(): void {
    const { agent, setting, name } = this.#options;
    this.#dials += 1;
    const dial = this.#dials;
    const { life } = agent;
    const isCurrent = () => this.#dials === dial && agent.life === life && this.#state.state !== "ended";
    const goal = this.#options.dial({
      hear: (frame) => {
        if (isCurrent()) this.#receive(frame);
      },
      closed: (code) => {
        if (isCurrent()) this.#lost(code);
      },
    });
    setting.network.later(setting.random.wait(20), `${name} dials`, () => {
      if (!isCurrent() || this.#state.state !== "dialling") return;
      if (setting.schedule.now < Math.max(goal.actor.downUntil, agent.downUntil))
        return this.#lost(1006, 503);
      const upgrade = goal.upgrade();
      if (!upgrade.ok) return this.#lost(1006, upgrade.status);
      this.#connection = upgrade.connection;
      setting.network.later(setting.random.wait(20), `${name} opened`, () => {
        if (isCurrent()) this.#apply({ type: "opened" });
      });
    });
  }

  #lost(code: number, status?: number): void {
    this.#connection = null;
    this.#apply({ type: "lost", code, detail: "", ...(status === undefined ? {} : { status }) });
  }

  #put(seq: number, body: FrameBody): void {
    if (this.#connection === null) return;
    this.#ackTimer?.cancel();
    this.#ackTimer = null;
    const now = this.#options.setting.schedule.now;
    const wire = { ...asOf(body, now), v: FRAME_VERSION, seq, ack: this.#dealt };
    this.#connection.up(this.#options.parse(wire), body.t);
  }

  #pump(): void {
    if (this.#state.state !== "up") return;
    for (const frame of due(this.#outbox, this.#left)) {
      const before = frame.seq <= this.#older ? (this.#options.preface?.(frame.body) ?? null) : null;
      if (before !== null) this.#put(0, before);
      this.#put(frame.seq, frame.body);
      this.#left = frame.seq;
      this.#outbox = said(this.#outbox, frame.seq);
    }
  }

  #acknowledgeSoon(): void {
    const { schedule } = this.#options.setting;
    this.#ackTimer ??= schedule.at(
      schedule.now + ACK_DELAY_MS,
      `${this.#options.name} ack`,
      () => {
        this.#ackTimer = null;
        if (this.#state.state === "up") this.#put(0, { t: "ack" });
      },
      false,
    );
  }

  #take(ack: number): void {
    const { store, setting } = this.#options;
    const before = this.#outbox;
    this.#outbox = setting.machines.agent.acknowledged(before, ack);
    if (this.#outbox.acked === before.acked) return;
    store?.acknowledged(this.#outbox.acked);
    const { frames, nextSeq } = this.#outbox;
    if (nextSeq === before.nextSeq || frames.length === 0) return;
    for (const { seq, body } of frames) store?.sent(seq, body);
    this.#releaseWhenSynced(nextSeq - 1);
  }

  #receive(frame: Down): void {
    this.#apply({ type: "heard" });
    this.#take(frame.ack);
    if (isWelcome(frame)) {
      if ("last_seq" in frame && typeof frame.last_seq === "number") this.#take(frame.last_seq);
      this.#left = this.#outbox.acked;
      this.#older = this.#outbox.nextSeq - 1;
      this.#apply({ type: "welcomed", heartbeatMs: 25_000 });
      this.#options.onWelcome(frame);
      this.#pump();
      return;
    }
    if (!isPayload(frame)) return;
    if (frame.seq > 0 && frame.seq <= this.#received) return this.#acknowledgeSoon();
    if (frame.seq > 0) this.#received = frame.seq;
    this.#queue.push(frame);
    this.#deal();
  }

  /** One frame after another, however long each takes. */
  #deal(): void {
    if (this.#dealing) return;
    const frame = this.#queue.shift();
    if (frame === undefined) return;
    this.#dealing = true;
    const { agent, store } = this.#options;
    const work = this.#state.state === "ended" ? nothing() : this.#options.onFrame(frame);
    agent.run(work, () => {
      this.#dealing = false;
      if (frame.seq > 0 && this.#state.state !== "ended") {
        this.#dealt = frame.seq;
        store?.dealt(this.#dealt);
        this.#acknowledgeSoon();
      }
      this.#deal();
    });
  }
}

function* nothing(): Flow<void> {
  yield* [];
}

function isWelcome<Down extends Frame>(frame: Down): frame is Extract<Down, { t: "welcome" }> {
  return frame.t === "welcome";
}

function isPayload<Down extends Frame>(frame: Down): frame is Exclude<Down, { t: "welcome" | "ack" }> {
  return frame.t !== "welcome" && frame.t !== "ack";
}
