import type { FrameBody } from "./frames.ts";

/** A reliable frame of ours that the edge has not acknowledged. */
export interface Unacknowledged {
  readonly seq: number;
  readonly body: FrameBody;
}

/**
 * The sender's half of a reliable link (protocol/frames.ts): frames in order of `seq`, from the first that is not
 * acknowledged; `ready` is the highest that may leave, since what is to survive a crash is first synced, and the
 * receiver would drop a lower `seq` that came after a higher one.
 */
export interface Outbox {
  readonly nextSeq: number;
  readonly acked: number;
  /** The highest seq that may have left, in this life or in one that the journal tells of. */
  readonly said: number;
  readonly frames: readonly Unacknowledged[];
  /** Frames that wait for the disk. */
  readonly unsynced: ReadonlySet<number>;
}

export function outboxOf(frames: readonly Unacknowledged[], nextSeq: number): Outbox {
  const acked = (frames[0]?.seq ?? nextSeq) - 1;
  return { nextSeq, acked, said: nextSeq - 1, frames, unsynced: new Set() };
}

/** Takes a frame; `durable` holds it, and all behind it, until {@link synced}. */
export function enqueue(outbox: Outbox, body: FrameBody, durable: boolean): Outbox {
  const seq = outbox.nextSeq;
  const unsynced = durable ? new Set([...outbox.unsynced, seq]) : outbox.unsynced;
  return { ...outbox, nextSeq: seq + 1, frames: [...outbox.frames, { seq, body }], unsynced };
}

/** All up to `seq` is on the disk. */
export function synced(outbox: Outbox, seq: number): Outbox {
  return { ...outbox, unsynced: new Set([...outbox.unsynced].filter((each) => each > seq)) };
}

/** All up to `seq` has left. */
export function said(outbox: Outbox, seq: number): Outbox {
  return seq <= outbox.said ? outbox : { ...outbox, said: seq };
}

/**
 * The edge has dealt with all up to `seq`. It may know a higher one than was ever said here: another life of this agent
 * said that, of which no journal tells. Then we count on from there, or it would drop what we say as old; and what has
 * not left yet is not what it means, whatever its number was.
 */
export function acknowledged(outbox: Outbox, seq: number): Outbox {
  if (seq <= outbox.acked && seq < outbox.nextSeq) return outbox;
  const by = seq > outbox.said ? seq - outbox.said : 0;
  const later = (each: number) => (each > outbox.said ? each + by : each);
  return {
    nextSeq: outbox.nextSeq + by,
    acked: Math.max(outbox.acked, seq),
    said: outbox.said + by,
    frames: outbox.frames
      .map((frame) => ({ ...frame, seq: later(frame.seq) }))
      .filter((frame) => frame.seq > seq),
    unsynced: new Set([...outbox.unsynced].map(later).filter((each) => each > seq)),
  };
}

/** What may leave now of what has not left on this connection (`sent`: the highest seq that has). */
export function due(outbox: Outbox, sent: number): Unacknowledged[] {
  const held = Math.min(...outbox.unsynced, Number.POSITIVE_INFINITY);
  return outbox.frames.filter((frame) => frame.seq > sent && frame.seq < held);
}
