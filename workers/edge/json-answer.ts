import { z } from "zod";

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
