import { readFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { build } from "esbuild";

/** One module of a Worker in the shape miniflare takes; the first of a bundle is the entry. */
export type WorkerModule =
  | { type: "ESModule"; path: string; contents: string }
  | { type: "CompiledWasm"; path: string; contents: Uint8Array<ArrayBuffer> };

/**
 * Bundles a Worker's TypeScript for workerd, in memory.
 *
 * WebAssembly stays a module of its own, since workerd compiles no bytes at run time.
 * @param entry path of the module that exports the handlers, entrypoints and Durable Objects.
 * @throws when the source does not parse or an import does not resolve; the message names file and line.
 */
export async function bundleWorker(entry: string): Promise<WorkerModule[]> {
  const root = dirname(resolve(entry));
  const wasm = new Map<string, string>();
  const result = await build({
    entryPoints: [entry],
    outfile: join(root, "worker.js"),
    bundle: true,
    write: false,
    format: "esm",
    target: "es2024",
    conditions: ["workerd", "worker", "browser", "import"],
    external: ["cloudflare:*", "node:*"],
    logLevel: "silent",
    plugins: [
      {
        name: "wasm-modules",
        setup(builder) {
          builder.onResolve({ filter: /\.wasm(\?module)?$/ }, async (args) => {
            if (args.pluginData === "resolved") return undefined;
            const found = await builder.resolve(args.path.replace(/\?module$/, ""), {
              kind: args.kind,
              resolveDir: args.resolveDir,
              pluginData: "resolved",
            });
            if (found.errors.length > 0) return { errors: found.errors };
            const name = `${wasm.size}-${basename(found.path)}`;
            wasm.set(found.path, wasm.get(found.path) ?? name);
            return { path: `./${wasm.get(found.path)}`, external: true };
          });
        },
      },
    ],
  });
  const [output] = result.outputFiles;
  if (output === undefined) throw new Error(`esbuild wrote nothing for ${relative(process.cwd(), entry)}`);
  const modules: WorkerModule[] = [
    { type: "ESModule", path: join(root, basename(output.path)), contents: output.text },
  ];
  for (const [file, name] of wasm) {
    modules.push({
      type: "CompiledWasm",
      path: join(root, name),
      contents: new Uint8Array(await readFile(file)),
    });
  }
  return modules;
}
