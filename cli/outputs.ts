import { access, constants, open, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { JobView } from "@gpux/protocol/job";
import type { FunctionManifest } from "@gpux/protocol/manifest-schema";
import { UsageError } from "./outcome.ts";

export interface OutputTarget {
  /** The output's name in the manifest. */
  readonly name: string;
  /** `-` is standard output. */
  readonly path: string;
}

/**
 * `--out file` for a function with one output, `--out name=file` for any. Checked before anything is paid for: names
 * exist, no file twice, folders can be written to.
 */
export async function planOutputs(
  manifest: FunctionManifest,
  flags: readonly string[],
): Promise<OutputTarget[]> {
  const names = manifest.outputs.map((output) => output.name);
  const targets: OutputTarget[] = [];
  for (const flag of flags) {
    const target = targetOf(flag, names);
    if (targets.some((other) => other.path === target.path))
      throw new UsageError(`--out ${target.path} is given twice`);
    if (target.path !== "-") await writable(target.path);
    targets.push(target);
  }
  return targets;
}

function targetOf(flag: string, names: readonly string[]): OutputTarget {
  const at = flag.indexOf("=");
  const prefix = flag.slice(0, Math.max(at, 0));
  // A file name may hold `=`: only a known output's name before it makes it an assignment.
  if (names.includes(prefix) && at + 1 < flag.length) return { name: prefix, path: flag.slice(at + 1) };
  const [only, ...others] = names;
  if (flag !== "" && only !== undefined && others.length === 0) return { name: only, path: flag };
  throw new UsageError(
    `--out ${flag}: which output?`,
    `Name it: ${names.map((name) => `--out ${name}=FILE`).join(" ")}`,
  );
}

async function writable(path: string): Promise<void> {
  try {
    await access(dirname(path), constants.W_OK);
  } catch {
    throw new UsageError(`${path} cannot be written: its folder is missing or not writable`);
  }
}

/** Which of the job's outputs goes where; a name that the job does not have is the node's fault. */
export function indexOfOutput(job: JobView, name: string): number {
  return job.outputs.findIndex((output) => output.name === name);
}

/** All or nothing: the bytes go to a file beside it, which then takes the name. */
export async function writeAtomically(path: string, bytes: Uint8Array): Promise<void> {
  const part = join(dirname(path), `.${basename(path)}.${process.pid}.part`);
  const file = await open(part, "wx", 0o666);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } catch (error) {
    await file.close();
    await unlink(part);
    throw error;
  }
  await file.close();
  await rename(part, path);
}
