/** The longest that a request may wait for an end, in seconds. */
export const MOST_WAIT_S = 60;

/** `wait` of RFC 7240 in seconds, at most {@link MOST_WAIT_S}; `null` without the preference. */
export function waitOf(request: Request): number | null {
  const wait = /(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,6})/i.exec(request.headers.get("prefer") ?? "")?.[1];
  return wait === undefined ? null : Math.min(Number(wait), MOST_WAIT_S);
}

/** Says that it was heeded. */
export function preferenceApplied(wait: number | null): Record<string, string> {
  return wait === null ? {} : { "preference-applied": `wait=${wait}` };
}
