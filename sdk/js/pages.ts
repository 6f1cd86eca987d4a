import type { Schema, Transport } from "./transport.ts";

/** Walks a list to its end, a page at a time. `schema` is the page's (`listOf` of protocol/answers.ts). */
export async function* pages<Item extends { id: string }>(
  transport: Transport,
  path: string,
  schema: Schema<{ data: Item[]; has_more: boolean }>,
  options: { readonly signed: boolean; readonly signal: AbortSignal | undefined },
): AsyncGenerator<Item> {
  let after: string | null = null;
  for (;;) {
    const query: string = after === null ? "" : `?after=${encodeURIComponent(after)}`;
    const page = await transport.json({ method: "GET", path: path + query, ...options }, schema);
    yield* page.data;
    const last = page.data.at(-1);
    // A page that says there is more and brings nothing new would be asked for without end.
    if (!page.has_more || last === undefined || last.id === after) return;
    after = last.id;
  }
}
