import { FRAME_LIMIT, FRAME_VERSION, FromLease, FromNode, ToLease, ToNode } from "@gpux/protocol/frames";
import { parserOf } from "@gpux/protocol/parser";
import { wireOf } from "@gpux/protocol/wire";
import { z } from "zod";

/** A frame without its head, in the wire's form (amounts as strings): what is journalled and replayed. */
export const FrameBody = z.looseObject({ t: z.string() });
export type FrameBody = z.infer<typeof FrameBody>;

type Body<Frame> = Frame extends unknown ? Omit<Frame, "v" | "seq" | "ack"> : never;

/** What the agent can say on the control socket. */
export type NodeBody = Body<FromNode>;
/** What the agent can say on a lease's data socket. */
export type LeaseBody = Body<FromLease>;

/** Checks and encodes; throws when the agent itself made a frame that breaks the contract. */
export function nodeBody(body: NodeBody): FrameBody {
  return withoutHead(z.encode(FromNode, { ...body, v: FRAME_VERSION, seq: 0, ack: 0 }));
}

const checkFromLease = parserOf(FromLease);

/** As {@link nodeBody}. */
export function leaseBody(body: LeaseBody): FrameBody {
  const frame = wireOf({ ...body, v: FRAME_VERSION, seq: 0, ack: 0 });
  const checked = checkFromLease(frame);
  if (!checked.success) throw checked.error;
  return withoutHead(frame);
}

/** Which field of a frame says how much time is left, in seconds. It counts from when the frame is sent. */
const LEFT: Readonly<Record<string, string>> = { drain: "deadline_s", yield: "notice_s" };

/** Goes on over wall clocks that are set, and roughly from one process to the next; ms since the epoch. */
export function ownClock(): number {
  return performance.timeOrigin + performance.now();
}

/** Keeps with such a frame when its time is over, by {@link ownClock}: sent again later, it says what is left then. */
export function dueBy(body: FrameBody, until: number): FrameBody {
  return { ...body, until };
}

/**
 * The body as it is sent at `now`. Never more than was said at first, so that a journal read by a process whose clock
 * was set back in between gives no more time.
 */
export function asOf({ until, ...body }: FrameBody, now: number): FrameBody {
  const field = LEFT[body.t];
  if (field === undefined || typeof until !== "number") return body;
  const left = Math.max(0, Math.ceil((until - now) / 1_000));
  const said = body[field];
  return { ...body, [field]: typeof said === "number" ? Math.min(said, left) : left };
}

function withoutHead({
  v: _v,
  seq: _seq,
  ack: _ack,
  ...body
}: {
  v: number;
  seq: number;
  ack: number;
  t: string;
}) {
  return body;
}

/** The text of a frame. Throws above the limit: the maker of the body has to keep it below. */
export function frameText(seq: number, ack: number, body: FrameBody): string {
  const text = JSON.stringify({ v: FRAME_VERSION, seq, ack, ...body });
  if (text.length > FRAME_LIMIT) throw new RangeError(`a ${body.t} frame of ${text.length} units`);
  return text;
}

/** From a text of the edge; null for whatever is no frame of the schema. */
function readerOf<Schema extends z.ZodType>(schema: Schema): (text: string) => z.output<Schema> | null {
  const parse = parserOf(schema);
  return (text) => {
    if (text.length > FRAME_LIMIT) return null;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return null;
    }
    const parsed = parse(value);
    return parsed.success ? parsed.data : null;
  };
}

export const parseToNode = readerOf(ToNode);
export const parseToLease = readerOf(ToLease);
