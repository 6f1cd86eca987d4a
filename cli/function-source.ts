import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Sha256 } from "@gpux/protocol/ids";
import { checkManifest, type FunctionManifest, functionAddress, packManifest } from "@gpux/protocol/manifest";
import type { Objects } from "@gpux/sdk";
import { z } from "zod";
import { UsageError } from "./outcome.ts";

export interface LoadedFunction {
  readonly manifest: FunctionManifest;
  /** Its content address. */
  readonly sha256: string;
  /** What has to be in the object store before a job can name it; null when it came from there. */
  readonly packed: Uint8Array | null;
}

/** `function.json` as authors keep it: a manifest whose modules are names of WGSL files beside it. */
const Source = z.looseObject({ modules: z.record(z.string(), z.string()) });
const MODULE_FILE = /^[A-Za-z0-9_-]+\.wgsl$/;

/** From a folder with function.json, a packed .json file, or the address of a stored function. */
export async function loadFunction(reference: string, objects: Objects): Promise<LoadedFunction> {
  if (Sha256.safeParse(reference).success) {
    const bytes = await objects.get(reference);
    const manifest = manifestOf(parse(new TextDecoder().decode(bytes), reference), reference);
    return { manifest, sha256: reference, packed: null };
  }
  const found = await stat(reference).catch(() => null);
  if (found === null) {
    throw new UsageError(
      `There is no function at ${reference}`,
      "Name a folder with function.json, a packed .json file, or a sha256.",
    );
  }
  const manifest = found.isDirectory() ? await packFolder(reference) : await readPacked(reference);
  return { manifest, sha256: await functionAddress(manifest), packed: packManifest(manifest) };
}

async function packFolder(folder: string): Promise<FunctionManifest> {
  const path = join(folder, "function.json");
  const source = Source.safeParse(parse(await read(path), path));
  if (!source.success)
    throw new UsageError(`${path} has no modules`, "docs/functions.md describes the manifest.");
  const modules: Record<string, string> = {};
  for (const [name, file] of Object.entries(source.data.modules)) {
    if (!MODULE_FILE.test(file)) {
      throw new UsageError(
        `${path} at /modules/${name}: ${JSON.stringify(file.slice(0, 60))} is no name of a .wgsl file beside it`,
      );
    }
    modules[name] = await read(join(folder, file));
  }
  return manifestOf({ ...source.data, modules }, path);
}

async function readPacked(path: string): Promise<FunctionManifest> {
  return manifestOf(parse(await read(path), path), path);
}

function manifestOf(document: unknown, path: string): FunctionManifest {
  const checked = checkManifest(document);
  if (checked.ok) return checked.manifest;
  throw new UsageError(
    `${path} at ${checked.pointer || "/"}: ${checked.detail}`,
    "docs/functions.md describes the manifest.",
  );
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new UsageError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${path} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}
