import type { JobView } from "@gpux/protocol/job";
import { wireText } from "@gpux/protocol/wire";
import { z } from "zod";

/**
 * As {@link jsonAnswer}, for a view that an object of ours has built and whose one codec is the amount: without its
 * schema, which would cost more than everything else in the answer (the property tests of the lease hold both against
 * each other).
 */
export function viewAnswer(
  view: JobView | { readonly object: "list"; readonly data: readonly JobView[]; readonly has_more: boolean },
  status: number,
  headers: Readonly<Record<string, string>>,
): Response {
  return new Response(wireText(view), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store", ...headers },
  });
}

/** A value in its wire form (`z.encode`: amounts as strings), as the API answers it. */
export function jsonAnswer<Schema extends z.ZodType>(
  schema: Schema,
  value: z.output<Schema>,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(JSON.stringify(z.encode(schema, value)), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store", ...headers },
  });
}
