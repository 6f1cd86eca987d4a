import { z } from "zod";

/**
 * How much of the time a node was there: what its Node object observed, a day (UTC) at a time, written when the node
 * comes or goes and never in between. Time of which nobody knows, such as after a crash of ours, counts neither way.
 * docs/matching.md says what is made of it.
 */
export const Presence = z.strictObject({
  /** Milliseconds; observed up to here. 0: never seen. */
  at: z.int().min(0),
  /** Oldest first. `on` and `off`: milliseconds of that day. */
  days: z.array(z.strictObject({ day: z.int(), on: z.int().min(0), off: z.int().min(0) })).max(8),
});
export type Presence = z.output<typeof Presence>;

export const NEVER_SEEN: Presence = { at: 0, days: [] };

export const DAY_MS = 86_400_000;
/** Today and the seven days before it, the first of them in part. */
const DAYS = 8;
const WINDOW_MS = 7 * DAY_MS;

/** Time until `to` was spent like this; what lies before `presence.at` is observed already. */
export function observed(presence: Presence, to: number, as: "on" | "off" | "unknown"): Presence {
  if (to <= presence.at) return presence;
  const days = presence.days.filter(({ day }) => day > dayOf(to) - DAYS);
  // What is older than the window would be dropped again.
  let from = Math.max(presence.at, (dayOf(to) - DAYS + 1) * DAY_MS);
  while (as !== "unknown" && presence.at > 0 && from < to) {
    const day = dayOf(from);
    const end = Math.min(to, (day + 1) * DAY_MS);
    const last = days.at(-1);
    const known = last?.day === day ? last : { day, on: 0, off: 0 };
    if (known === last) days.pop();
    days.push({ ...known, [as]: known[as] + end - from });
    from = end;
  }
  return { at: to, days };
}

export interface Standing {
  /** Share of the observed time of the last seven days, hundredths of a percent; 0 before anything was observed. */
  readonly reliability: number;
  /** Milliseconds that this is a share of. */
  readonly observedMs: number;
  /** Hundredths of a percent; what prices are weighed by. */
  readonly score: number;
}

/** A day at 90 % that nobody saw: a node begins with a score of 0.9 and has to earn the rest. */
const PRIOR_MS = DAY_MS;
const PRIOR_ON_MS = 0.9 * DAY_MS;

/** `online`: since `presence.at` the node has been there; else it has been away. */
export function standingOf(presence: Presence, online: boolean, now: number): Standing {
  const { days } = presence.at === 0 ? presence : observed(presence, now, online ? "on" : "off");
  const from = now - WINDOW_MS;
  let on = 0;
  let off = 0;
  for (const { day, ...ms } of days) {
    // Of the day in which the window begins, its share.
    const share = Math.min(1, Math.max(0, ((day + 1) * DAY_MS - from) / DAY_MS));
    on += ms.on * share;
    off += ms.off * share;
  }
  const total = on + off;
  return {
    reliability: total === 0 ? 0 : Math.floor((on / total) * 10_000),
    observedMs: Math.round(total),
    score: Math.floor(((on + PRIOR_ON_MS) / (total + PRIOR_MS)) * 10_000),
  };
}

function dayOf(ms: number): number {
  return Math.floor(ms / DAY_MS);
}
