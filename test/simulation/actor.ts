/** A pause in a flow: it gets what takes the flow up again. */
export type Pause = (resume: () => void) => void;

/** What an actor does over a time. It stops for good when its actor crashes. */
export type Flow<T> = Generator<Pause, T, void>;

/** The other side did not answer; whether it did what was asked, nobody knows. */
export class Unreachable extends Error {
  constructor(what: string) {
    super(`${what} was not answered`);
    this.name = "Unreachable";
  }
}

export type Settled<T> = { readonly ok: true; readonly value: T } | { readonly ok: false };

/** Somebody with a memory that a crash takes. What is to survive, the subclass keeps as its disk. */
export class Actor {
  readonly name: string;
  /** Raised by every crash: what belongs to an earlier life does nothing any more. */
  life = 1;
  /** It dies at the end of the event that runs: what that event wrote stays, what it said is never heard. */
  doomed = false;
  /** Until when nobody reaches it. */
  downUntil = 0;
  /** Callers who wait for an answer of this life. */
  readonly waiting = new Set<() => void>();

  constructor(name: string) {
    this.name = name;
  }

  /** Begins a flow; `done` hears of its end unless the actor crashes before. */
  run<T>(flow: Flow<T>, done: (settled: Settled<T>) => void): void {
    const { life } = this;
    const advance = (): void => {
      if (this.life !== life) return;
      let result: IteratorResult<Pause, T>;
      try {
        result = flow.next();
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        done({ ok: false });
        return;
      }
      if (result.done === true) done({ ok: true, value: result.value });
      else result.value(advance);
    };
    advance();
  }

  /** Memory is gone; callers hear that nobody is there. */
  crash(): void {
    this.life += 1;
    this.doomed = false;
    const callers = [...this.waiting];
    this.waiting.clear();
    for (const tell of callers) tell();
  }
}

/** A flow that has its value already. */
// biome-ignore lint/correctness/useYield: a flow that never pauses is still one to its callers.
export function* settled<T>(value: T): Flow<T> {
  return value;
}
