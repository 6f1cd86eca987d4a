import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { bookOf, DIRECTORY } from "@gpux/durable-objects/books";
import { configOf } from "@gpux/durable-objects/config";
import type { BookEntry } from "@gpux/durable-objects/interfaces";
import { BLOCKERS } from "@gpux/protocol/resources";

/** Why nobody bought from a node: of the Books that keep unmet demands, those that it stands in. */
export async function skippedOf(env: ObjectEnv, { offer, node }: BookEntry): Promise<Record<string, number>> {
  const { bookShards } = configOf(env);
  const models = new Set(offer.gpus.map((gpu) => gpu.model));
  const groups = [DIRECTORY, ...Array.from(models, (model) => ({ model, region: null }))];
  const counts = await Promise.all(
    groups.map((group) => env.BOOK.getByName(bookOf(group, node, bookShards)).skipped(node)),
  );
  return Object.fromEntries(
    BLOCKERS.map(
      (blocker) => [blocker, counts.reduce((sum, each) => sum + (each[blocker] ?? 0), 0)] as const,
    ).filter(([, count]) => count > 0),
  );
}
