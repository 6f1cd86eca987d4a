import { z } from "zod";
import { type Child, startOurs } from "../child.ts";
import type { Loaded } from "./closed-loop.ts";
import type { HttpLoad } from "./http.ts";
import type { StreamLoad } from "./stream.ts";

/**
 * A load generator in a process beside us, so that neither our garbage collector nor our chain shows in the latencies.
 * `L` is what its program understands.
 */
export interface Client<L> {
  run(load: L): Promise<Loaded>;
  stop(): Promise<void>;
}

const Answer = z.discriminatedUnion("ok", [
  z.strictObject({
    ok: z.literal(true),
    loaded: z.strictObject({
      turns: z.int(),
      errors: z.int(),
      sample: z.string(),
      wallMs: z.number(),
      latenciesUs: z.instanceof(Float64Array),
      firstUs: z.instanceof(Float64Array),
    }),
  }),
  z.strictObject({ ok: z.literal(false), detail: z.string() }),
]);

/** A program that answers each message by {@link answerLoads}. */
export function startClient<L extends object>(name: string, folder: string, program: URL): Client<L> {
  const child: Child = startOurs(name, folder, program);
  return {
    async run(load) {
      const answer = Answer.parse(await child.ask({ ...load }));
      if (!answer.ok) throw new Error(`${name}: ${answer.detail}`);
      return answer.loaded;
    },
    stop: child.stop,
  };
}

export function startHttpClient(folder: string): Client<HttpLoad> {
  return startClient("client", folder, new URL("./http-client.ts", import.meta.url));
}

export function startStreamClient(folder: string): Client<StreamLoad> {
  return startClient("stream-client", folder, new URL("./stream-client.ts", import.meta.url));
}

/** In such a program: takes one load per message, answers with what came of it, ends with its parent. */
export function answerLoads<L>(run: (load: L) => Promise<Loaded>): void {
  process.on("message", (load: L) => {
    run(load).then(
      (loaded) => process.send?.({ ok: true, loaded }),
      (error: unknown) => process.send?.({ ok: false, detail: String(error) }),
    );
  });
  process.once("disconnect", () => process.exit());
}

/** The value below which a share of the sorted values lies; 0 of nothing. */
export function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
