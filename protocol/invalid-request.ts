import type { z } from "zod";

/** Where a request does not fit its schema, and what is wrong there. */
export interface RequestFault {
  /** RFC 6901, into the body; of path and query parameters it begins with `path` or `query`. */
  readonly pointer: string;
  readonly detail: string;
}

/** What `invalid_request` says; `where` stands before the pointers. */
export function invalidRequest(
  where: string,
  error: z.core.$ZodError,
): { readonly detail: string | undefined; readonly errors: readonly RequestFault[] } {
  const errors = issuesOf(error)
    .slice(0, 20)
    .map((issue) => ({
      pointer: `${where}/${issue.path.map((part) => String(part).replaceAll("~", "~0").replaceAll("/", "~1")).join("/")}`,
      detail: issue.message,
    }));
  return { detail: errors[0] && `${errors[0].pointer}: ${errors[0].detail}`, errors };
}

/** Of a union, what the kind lacks that the body is nearest to: of its type, and with the fewest fields unknown to it. */
function issuesOf({ issues }: { readonly issues: readonly z.core.$ZodIssue[] }): readonly z.core.$ZodIssue[] {
  return issues.flatMap((issue) => {
    if (issue.code !== "invalid_union" || issue.path.length > 0) return issue;
    const isOther = (kind: readonly z.core.$ZodIssue[]) =>
      Number(kind.some(({ code, path }) => code === "invalid_type" && path.length === 0));
    const unknown = (kind: readonly z.core.$ZodIssue[]) =>
      kind.reduce((sum, each) => sum + (each.code === "unrecognized_keys" ? each.keys.length : 0), 0);
    const nearest = issue.errors.toSorted(
      (a, b) => isOther(a) - isOther(b) || unknown(a) - unknown(b) || a.length - b.length,
    )[0];
    return nearest === undefined || nearest.length === 0 ? issue : nearest;
  });
}
