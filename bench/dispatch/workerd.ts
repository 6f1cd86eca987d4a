import { mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { z } from "zod";
import {
  EDGE_WORKERS,
  type EdgeOptions,
  type EdgeWorker,
  edgeBindings,
  edgeUrl,
  WORKER_CONFIGS,
} from "../../scripts/stack/edge.ts";
import { bundleWorker } from "../../scripts/worker-bundle.ts";
import { type Child, cameUp, startOurs, startProgram } from "../child.ts";

const UP_MS = 30_000;
const Serving = z.strictObject({ port: z.int() });
/** Serves the Workers' fetches: to the chain on this machine, and to nowhere else. */
const NETWORK = `(name = "internet", network = (allow = ["public", "private"]))`;
const OBJECT_STORE = new URL("./programs/object-store.ts", import.meta.url);

/** The edge's processes: the platform's runtime, and what stands in for its object store. */
export interface EdgeProcesses {
  readonly workerd: Child;
  readonly store: Child;
}

/**
 * The edge, relayer and meter in one bare `workerd serve`, Durable Objects on the local disk: what the platform runs,
 * without miniflare's proxies in front, which cost more than the path that is measured. What each Worker needs is
 * read from its wrangler.toml.
 */
export async function startWorkerd(options: EdgeOptions): Promise<EdgeProcesses> {
  const { storage } = options;
  const disk = join(storage, "objects");
  await mkdir(disk, { recursive: true });
  const store = startOurs("object-store", storage, OBJECT_STORE);
  const { port: objectsPort } = Serving.parse(await store.next());
  const workers = await Promise.all(EDGE_WORKERS.map((name) => workerText(name, options)));
  const config = [
    `using Workerd = import "/workerd/workerd.capnp";`,
    "const config :Workerd.Config = (",
    "  services = [",
    ...EDGE_WORKERS.map((name) => `    (name = "gpux-${name}", worker = .${name}),`),
    `    (name = "objects", external = (address = "127.0.0.1:${objectsPort}", http = ())),`,
    `    (name = "disk", disk = (writable = true)),`,
    `    ${NETWORK},`,
    "  ],",
    `  sockets = [(name = "http", address = "127.0.0.1:${options.port}", http = (), service = "gpux-edge")],`,
    ");",
    ...workers,
  ];
  const file = join(storage, "edge.capnp");
  await writeFile(file, config.join("\n"));
  const program = z.object({ default: z.string() }).parse(createRequire(import.meta.url)("workerd")).default;
  const workerd = startProgram("workerd", storage, [program, "serve", file, `-ddisk=${disk}`]);
  await cameUp(workerd, () => healthy(edgeUrl(options)), UP_MS);
  return { workerd, store };
}

async function healthy(url: string): Promise<boolean> {
  // workerd closes idle keep-alive connections, and a pooled one would fail later.
  const answer = await fetch(`${url}/healthz`, { headers: { connection: "close" } }).catch(() => null);
  return answer?.ok === true;
}

const WorkerOptions = z.object({
  compatibilityDate: z.string(),
  durableObjects: z.record(z.string(), z.object({ className: z.string(), useSQLite: z.boolean() })),
  serviceBindings: z.record(z.string(), z.object({ name: z.string(), entrypoint: z.string() })),
  r2Buckets: z.record(z.string(), z.unknown()),
});

async function workerOptionsOf(name: EdgeWorker) {
  process.env.WRANGLER_LOG ??= "error";
  const { unstable_getMiniflareWorkerOptions } = await import("wrangler");
  const { main, workerOptions } = unstable_getMiniflareWorkerOptions(WORKER_CONFIGS[name]);
  return { ...WorkerOptions.parse(workerOptions), main: z.string().parse(main) };
}

/** The constant of one Worker in the configuration's language (workerd.capnp). */
async function workerText(name: EdgeWorker, options: EdgeOptions): Promise<string> {
  const { main, compatibilityDate, ...needs } = await workerOptionsOf(name);
  const folder = join(options.storage, name);
  await mkdir(folder, { recursive: true });
  const modules: string[] = [];
  for (const { type, path, contents } of await bundleWorker(main)) {
    const module = basename(path);
    await writeFile(join(folder, module), contents);
    const kind = type === "ESModule" ? "esModule" : "wasm";
    modules.push(`(name = ${text(module)}, ${kind} = embed ${text(`${name}/${module}`)})`);
  }
  const objects = Object.entries(needs.durableObjects);
  const bindings = [
    ...Object.entries(edgeBindings(options)[name]).map(
      ([key, value]) => `(name = "${key}", text = ${text(value)})`,
    ),
    ...objects.map(([key, { className }]) => `(name = "${key}", durableObjectNamespace = "${className}")`),
    ...Object.entries(needs.serviceBindings).map(([key, to]) => serviceText(key, to.name, to.entrypoint)),
    ...Object.keys(needs.r2Buckets).map((key) => `(name = "${key}", r2Bucket = "objects")`),
  ];
  const namespaces = objects.map(
    ([, { className, useSQLite }]) =>
      `(className = "${className}", uniqueKey = "${name}-${className}", enableSql = ${useSQLite})`,
  );
  return [
    `const ${name} :Workerd.Worker = (`,
    `  compatibilityDate = "${compatibilityDate}",`,
    `  modules = [${modules.join(", ")}],`,
    `  bindings = [${bindings.join(", ")}],`,
    `  durableObjectNamespaces = [${namespaces.join(", ")}],`,
    `  durableObjectStorage = (localDisk = "disk"),`,
    ");",
  ].join("\n");
}

const serviceText = (key: string, service: string, entrypoint: string) =>
  `(name = "${key}", service = (name = "${service}", entrypoint = "${entrypoint}"))`;

/** A Cap'n Proto text literal: its escapes are C's, as JSON's are for what stands here. */
function text(value: string): string {
  return JSON.stringify(value);
}
