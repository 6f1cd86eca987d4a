import type { JobRequest } from "@gpux/protocol/job";
import { checkManifest, type FunctionManifest } from "@gpux/protocol/manifest";
import type { Outcome } from "./interfaces.ts";

/** Manifests hold at most 16 modules of 256 KB each, and what stands around them. */
const MANIFEST_LIMIT = 5 * 2 ** 20;
const REMEMBERED = 1_000;

type Inputs = FunctionManifest["inputs"];

/**
 * The inputs of functions that this isolate has found good, by hash; the least recently used goes first. Only good ones
 * are kept: a hash without an object may have one in a second.
 */
const known = new Map<string, Inputs>();

/**
 * Whether the function exists, keeps to the rules, and takes these inputs. Read once per isolate and function, so that
 * the warm path waits for no storage.
 */
export async function checkFunction(
  objects: R2Bucket,
  request: Pick<JobRequest, "function" | "inputs">,
): Promise<Outcome> {
  let inputs = known.get(request.function);
  if (inputs === undefined) {
    const read = await readInputs(objects, request.function);
    if (!read.ok) return read;
    inputs = read.inputs;
  }
  known.delete(request.function);
  known.set(request.function, inputs);
  const oldest = known.keys().next();
  if (known.size > REMEMBERED && !oldest.done) known.delete(oldest.value);
  return checkInputs(inputs, request.inputs);
}

async function readInputs(objects: R2Bucket, sha256: string): Promise<Outcome<{ inputs: Inputs }>> {
  const object = await objects.get(sha256);
  if (object === null) return { ok: false, code: "function_unknown" };
  if (object.size > MANIFEST_LIMIT)
    return { ok: false, code: "manifest_invalid", detail: "the object is too large for a manifest" };
  let value: unknown;
  try {
    value = JSON.parse(await object.text());
  } catch {
    return { ok: false, code: "manifest_invalid", detail: "the object is not JSON" };
  }
  const checked = checkManifest(value);
  if (!checked.ok)
    return { ok: false, code: "manifest_invalid", detail: `${checked.pointer}: ${checked.detail}` };
  return { ok: true, inputs: checked.manifest.inputs };
}

/** What is known without the values' bytes; the executor checks the rest. */
function checkInputs(declared: Inputs, given: JobRequest["inputs"]): Outcome {
  for (const [name, value] of Object.entries(given)) {
    const input = Object.hasOwn(declared, name) ? declared[name] : undefined;
    if (input === undefined)
      return { ok: false, code: "input_invalid", detail: `the function has no input "${name}"` };
    if ((input.kind === "number") !== "number" in value)
      return { ok: false, code: "input_invalid", detail: `"${name}" is of kind ${input.kind}` };
    if (
      "number" in value &&
      input.kind === "number" &&
      !(value.number >= input.min && value.number <= input.max)
    )
      return {
        ok: false,
        code: "input_invalid",
        detail: `"${name}" must be from ${input.min} to ${input.max}`,
      };
  }
  for (const [name, input] of Object.entries(declared)) {
    if (Object.hasOwn(given, name) || (input.kind === "number" && input.default !== undefined)) continue;
    return { ok: false, code: "input_invalid", detail: `the input "${name}" is missing` };
  }
  return { ok: true };
}
