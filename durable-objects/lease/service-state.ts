import { Amount } from "@gpux/protocol/money";
import { z } from "zod";

const Time = z.int().min(0);

/** The clock of a dedicated lease (service.ts). Milliseconds of service unless it says otherwise. */
export const Service = z.strictObject({
  /** When the agent confirmed that it serves; nothing counts before. */
  servingAt: Time.nullable(),
  /** Since when the edge's clock runs; null while it stands. */
  since: Time.nullable(),
  /** What it has counted until it last stood. */
  edgeMs: z.int().min(0),
  /** The most that the agent has counted. */
  agentMs: z.int().min(0),
  /** What the edge's clock had counted when the agent last answered. */
  countedMs: z.int().min(0),
  /** The number of the last question to the agent, and when it was put; null: it is answered. */
  asked: z.int().min(0),
  askedAt: Time.nullable(),
  /** Until when time is billed. */
  billedTo: Time.nullable(),
  /** What was left when it fell below a fifth of the money; null before, and again after a top-up. */
  low: Amount.nullable(),
  /** Nothing more will be counted. */
  isFinal: z.boolean(),
});

/** Of a lease that has not begun. */
export const NOT_SERVED = {
  servingAt: null,
  since: null,
  edgeMs: 0,
  agentMs: 0,
  countedMs: 0,
  asked: 0,
  askedAt: null,
  billedTo: null,
  low: null,
  isFinal: false,
} as const satisfies z.output<typeof Service>;
