import { type Actor, type Flow, Unreachable } from "./actor.ts";
import type { Random } from "./random.ts";
import type { Schedule } from "./schedule.ts";

/** How bad the network is; probabilities are per message, times in ms. */
export interface Weather {
  readonly meanDelay: number;
  readonly slow: number;
  /** A frame's, that a stall of its connection holds back for long; all behind it waits too. */
  readonly stall: number;
  readonly loseRequest: number;
  readonly loseReply: number;
  readonly repeat: number;
}

export const CALM: Weather = { meanDelay: 3, slow: 0, stall: 0, loseRequest: 0, loseReply: 0, repeat: 0 };

/** A connection that is silent for longer is dead to its ends' heartbeats. */
const LONGEST_STALL_MS = 40_000;

/** A caller gives up after so long; what it asked may still happen. */
const CALL_TIMEOUT_MS = 10_000;

/** One end of a connection. */
export interface End<In> {
  hear(message: In): void;
  /** The connection is over: by the other end's close, or because it broke (1006). */
  closed(code: number): void;
}

/**
 * A WebSocket: in order, never twice, and cut off at any time, whereupon what was under way is lost. Frames that come
 * twice, late or in another order are the doing of its ends, which dial again and say again.
 */
export class Connection<Up, Down> {
  readonly #network: Network;
  readonly #agent: End<Down>;
  readonly #object: { readonly actor: Actor; readonly end: End<Up> };
  #agentOpen = true;
  #objectOpen = true;
  #broken = false;
  #upAt = 0;
  #downAt = 0;

  constructor(
    network: Network,
    agent: End<Down>,
    object: { readonly actor: Actor; readonly end: (connection: Connection<Up, Down>) => End<Up> },
  ) {
    this.#network = network;
    this.#agent = agent;
    this.#object = { actor: object.actor, end: object.end(this) };
  }

  /** A heartbeat would be answered. */
  get alive(): boolean {
    return !this.#broken && this.#agentOpen && this.#objectOpen;
  }

  get objectOpen(): boolean {
    return this.#objectOpen;
  }

  up(message: Up, what: string): void {
    if (!this.#agentOpen || this.#broken) return;
    this.#upAt = this.#network.frame(this.#upAt, `${this.#object.actor.name} <- ${what}`, () => {
      if (!this.#broken && this.#objectOpen) this.#object.end.hear(message);
    });
  }

  down(message: Down, what: string): void {
    if (!this.#objectOpen || this.#broken || this.#object.actor.doomed) return;
    this.#downAt = this.#network.frame(this.#downAt, `${this.#object.actor.name} -> ${what}`, () => {
      if (!this.#broken && this.#agentOpen) this.#agent.hear(message);
    });
  }

  closeByAgent(code: number): void {
    if (!this.#agentOpen) return;
    this.#agentOpen = false;
    if (this.#broken) return;
    this.#network.frame(this.#upAt, `${this.#object.actor.name} <- close ${code}`, () =>
      this.#endObject(code),
    );
  }

  closeByObject(code: number): void {
    if (!this.#objectOpen) return;
    this.#objectOpen = false;
    if (this.#broken) return;
    this.#network.frame(this.#downAt, `${this.#object.actor.name} -> close ${code}`, () =>
      this.#endAgent(code),
    );
  }

  /** The wire breaks. Each end hears of it after its own time, if ever: `null` is never. */
  cut(agentAfter: number | null, objectAfter: number | null): void {
    if (this.#broken) return;
    this.#broken = true;
    const { name } = this.#object.actor;
    if (agentAfter !== null) this.#network.later(agentAfter, `${name} -> broken`, () => this.#endAgent(1006));
    if (objectAfter !== null)
      this.#network.later(objectAfter, `${name} <- broken`, () => this.#endObject(1006));
  }

  /** The object's process died: it will never speak on this again, nor hear of its end. */
  lostByObject(agentAfter: number): void {
    this.#objectOpen = false;
    this.cut(agentAfter, null);
  }

  /** The agent's process died. */
  lostByAgent(objectAfter: number | null): void {
    this.#agentOpen = false;
    this.cut(null, objectAfter);
  }

  #endAgent(code: number): void {
    if (!this.#agentOpen) return;
    this.#agentOpen = false;
    this.#agent.closed(code);
  }

  #endObject(code: number): void {
    if (!this.#objectOpen) return;
    this.#objectOpen = false;
    this.#object.end.closed(code);
  }
}

/** Calls between objects, and time for messages to travel in. */
export class Network {
  weather: Weather = CALM;
  readonly #schedule: Schedule;
  readonly #random: Random;

  constructor(schedule: Schedule, random: Random) {
    this.#schedule = schedule;
    this.#random = random;
  }

  #delay(): number {
    const { meanDelay, slow } = this.weather;
    return this.#random.wait(slow > 0 && this.#random.chance(slow) ? 60 * meanDelay : meanDelay);
  }

  later(after: number, what: string, run: () => void): void {
    this.#schedule.at(this.#schedule.now + after, what, run);
  }

  /** Delivers behind what left before; answers when. */
  frame(behind: number, what: string, run: () => void): number {
    const { stall } = this.weather;
    const stalled = stall > 0 && this.#random.chance(stall) ? this.#random.int(3_000, LONGEST_STALL_MS) : 0;
    const at = Math.max(behind, this.#schedule.now + this.#delay() + stalled);
    this.#schedule.at(at, what, run);
    return at;
  }

  /**
   * A call over RPC. It may be lost on the way there or back, take long, reach its goal after the caller has given up,
   * or, where `repeats` says that a retrying caller may do so, arrive twice. Throws {@link Unreachable}.
   */
  *call<T>(from: Actor, to: Actor, what: string, work: () => Flow<T>, repeats = false): Flow<T> {
    const answer: { value?: { readonly it: T } } = {};
    yield (resume) => {
      const { loseRequest, loseReply, repeat } = this.weather;
      let over = false;
      const end = (value: { it: T } | null) => {
        if (over) return;
        over = true;
        timeout.cancel();
        if (value !== null) answer.value = value;
        resume();
      };
      const timeout = this.#schedule.at(
        this.#schedule.now + CALL_TIMEOUT_MS,
        `${what} timed out`,
        () => end(null),
        false,
      );
      const deliver = (isFirst: boolean) => {
        this.later(this.#delay(), `${from.name} => ${to.name} ${what}`, () => {
          if (this.#schedule.now < to.downUntil) {
            if (isFirst) this.later(this.#delay(), `${what} refused`, () => end(null));
            return;
          }
          const lost = () => {
            if (isFirst) this.later(this.#delay(), `${what} broke off`, () => end(null));
          };
          to.waiting.add(lost);
          to.run(work(), (settled) => {
            to.waiting.delete(lost);
            if (!isFirst || to.doomed || this.#random.chance(loseReply)) return;
            this.later(this.#delay(), `${to.name} => ${from.name} ${what}`, () =>
              end(settled.ok ? { it: settled.value } : null),
            );
          });
        });
      };
      if (from.doomed || this.#random.chance(loseRequest)) return;
      deliver(true);
      if (repeats && this.#random.chance(repeat)) deliver(false);
    };
    if (answer.value === undefined) throw new Unreachable(what);
    return answer.value.it;
  }
}
