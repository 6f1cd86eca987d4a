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
  readonly frames: readonly Unacknowledged[];
  /** Frames that wait for the disk. */
  readonly unsynced: ReadonlySet<number>;
}

export function outboxOf(frames: readonly Unacknowledged[], nextSeq: number): Outbox {
  return { nextSeq, acked: (frames[0]?.seq ?? nextSeq) - 1, frames, unsynced: new Set() };
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

/**
 * The edge has dealt with all up to `seq`. It may know a higher one than we do, when our journal was lost: then we
 * count on from there, or it would drop what we say as old.
 */
export function acknowledged(outbox: Outbox, seq: number): Outbox {
  if (seq <= outbox.acked && seq < outbox.nextSeq) return outbox;
  return {
    nextSeq: Math.max(outbox.nextSeq, seq + 1),
    acked: Math.max(outbox.acked, seq),
    frames: outbox.frames.filter((frame) => frame.seq > seq),
    unsynced: new Set([...outbox.unsynced].filter((each) => each > seq)),
  };
}

/** What may leave now of what has not left on this connection (`sent`: the highest seq that has). */
export function due(outbox: Outbox, sent: number): Unacknowledged[] {
  const held = Math.min(...outbox.unsynced, Number.POSITIVE_INFINITY);
  return outbox.frames.filter((frame) => frame.seq > sent && frame.seq < held);
}
