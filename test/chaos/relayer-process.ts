import { dirname, resolve } from "node:path";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions } from "wrangler";
import { z } from "zod";
import { bundleWorker } from "../../scripts/worker-bundle.ts";

/**
 * The real relayer Worker in a real workerd, as a process of its own that can be killed like a power cut:
 * `node relayer-process.ts OPTIONS`. Its RPC is reached through a door that the product does not have.
 */
const Options = z.strictObject({
  storage: z.string(),
  bindings: z.record(z.string(), z.json()),
});

const DOOR = `export default {
  async fetch(request, env) {
    const { method, args } = await request.json();
    return Response.json((await env.RELAYER[method](...args)) ?? null);
  },
};`;

process.env.WRANGLER_LOG ??= "error";
const options = Options.parse(JSON.parse(process.argv[2] ?? "{}"));
const { main, workerOptions } = unstable_getMiniflareWorkerOptions("workers/relayer/wrangler.toml");
if (main === undefined) throw new Error("the relayer's wrangler.toml names no main");
const miniflare = new Miniflare(
  convertV4MiniflareOptions({
    host: "127.0.0.1",
    port: 0,
    cf: false,
    telemetry: { enabled: false },
    log: new Log(LogLevel.NONE),
    resourcePersistencePath: options.storage,
    workers: [
      {
        name: "door",
        modulesRoot: "/",
        modules: [{ type: "ESModule" as const, path: "/door.js", contents: DOOR }],
        compatibilityDate: "2026-11-01",
        serviceBindings: { RELAYER: { name: "gpux-relayer", entrypoint: "Relayer" } },
      },
      {
        ...workerOptions,
        name: "gpux-relayer",
        bindings: options.bindings,
        modulesRoot: dirname(resolve(main)),
        modules: await bundleWorker(main),
      },
    ],
  }),
);
// It leads a process group; when who started it is gone, workerd shall not hold the storage.
process.stdin.resume().once("close", () => process.kill(-process.pid, "SIGKILL"));
const url = await miniflare.ready;
console.log(JSON.stringify({ url: url.href }));
