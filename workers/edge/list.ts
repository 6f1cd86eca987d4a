import { z } from "zod";

/** Query of a list: at most `limit` items, those after the item with id `after`. */
export const Page = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  after: z.string().optional(),
});

/** One page; the next one begins `after` the last item's id. */
export function listOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({ object: z.literal("list"), data: z.array(item), has_more: z.boolean() });
}
