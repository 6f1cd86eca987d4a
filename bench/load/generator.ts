import { z } from "zod";
import { startOurs } from "../child.ts";
import type { Load, Loaded } from "./closed-loop.ts";

const Answer = z.discriminatedUnion("ok", [
  z.strictObject({
    ok: z.literal(true),
    loaded: z.strictObject({
      jobs: z.int(),
      errors: z.int(),
      sample: z.string(),
      wallMs: z.number(),
      latenciesUs: z.instanceof(Float64Array),
    }),
  }),
  z.strictObject({ ok: z.literal(false), detail: z.string() }),
]);

/** A load generator beside us, so that neither our garbage collector nor our chain shows in the latencies. */
export interface Generator {
  run(load: Load): Promise<Loaded>;
  stop(): Promise<void>;
}

export function startGenerator(folder: string): Generator {
  const child = startOurs("client", folder, new URL("./client.ts", import.meta.url));
  return {
    async run(load) {
      const answer = Answer.parse(await child.ask(load));
      if (!answer.ok) throw new Error(`port ${load.port}: ${answer.detail}`);
      return answer.loaded;
    },
    stop: child.stop,
  };
}

/** The value below which a share of the sorted values lies; 0 of nothing. */
export function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
