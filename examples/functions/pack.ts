import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { checkManifest, type FunctionManifest } from "@gpux/protocol/manifest";
import { z } from "zod";

const Source = z.looseObject({ modules: z.record(z.string(), z.string().regex(/^[A-Za-z0-9_-]+\.wgsl$/)) });

/**
 * Reads `folder/function.json`, a manifest whose modules are file names beside it, and answers the manifest with
 * their WGSL in place. Throws when a file is missing or the result is not a valid manifest.
 */
export async function packFunction(folder: string): Promise<FunctionManifest> {
  const source = Source.parse(JSON.parse(await readFile(join(folder, "function.json"), "utf8")));
  const modules: Record<string, string> = {};
  for (const [name, file] of Object.entries(source.modules)) {
    modules[name] = await readFile(join(folder, file), "utf8");
  }
  const checked = checkManifest({ ...source, modules });
  if (!checked.ok)
    throw new Error(`${basename(folder)}/function.json at ${checked.pointer}: ${checked.detail}`);
  return checked.manifest;
}
