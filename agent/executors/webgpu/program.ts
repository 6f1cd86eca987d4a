import type { FunctionManifest } from "@gpux/protocol/manifest";
import { functionAddress } from "@gpux/protocol/manifest";
import type { Diagnostic } from "../executor.ts";

/** A function's pipelines, in the order of its passes. */
export type Program = { ok: true; pipelines: GPUComputePipeline[] };
export type CompileRefusal = { ok: false; code: "wgsl_invalid"; detail: string; diagnostics: Diagnostic[] };

/** Compiled functions of one device by address, the least recently used thrown away beyond `CAPACITY`. */
const CAPACITY = 32;

export class ProgramCache {
  readonly #device: GPUDevice;
  readonly #programs = new Map<string, Program>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Failures are not kept: they are cheap to find again, and rare from honest callers. */
  async compile(manifest: FunctionManifest): Promise<Program | CompileRefusal> {
    const address = await functionAddress(manifest);
    const known = this.#programs.get(address);
    const program = known ?? (await compile(this.#device, manifest));
    if (!program.ok) return program;
    this.#programs.delete(address);
    this.#programs.set(address, program);
    for (const oldest of this.#programs.keys()) {
      if (this.#programs.size <= CAPACITY) break;
      this.#programs.delete(oldest);
    }
    return program;
  }
}

async function compile(device: GPUDevice, manifest: FunctionManifest): Promise<Program | CompileRefusal> {
  const modules = new Map<string, GPUShaderModule>();
  for (const [name, code] of Object.entries(manifest.modules)) {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: name, code });
    const [problem, info] = await Promise.all([device.popErrorScope(), module.getCompilationInfo()]);
    const errors = info.messages.filter(({ type }) => type === "error");
    if (problem || errors.length > 0) return refusal(name, problem, errors);
    modules.set(name, module);
  }
  const pipelines: GPUComputePipeline[] = [];
  for (const [index, pass] of manifest.passes.entries()) {
    const module = modules.get(pass.module);
    if (!module) throw new Error(`no module ${pass.module}: was the manifest checked?`);
    device.pushErrorScope("validation");
    try {
      const compute = { module, entryPoint: pass.entryPoint, constants: pass.constants ?? {} };
      pipelines.push(await device.createComputePipelineAsync({ layout: "auto", compute }));
    } catch (error) {
      // GPUPipelineError: no such entry point, no such constant, too much workgroup memory, and so on.
      const detail = `pass ${index}: ${error instanceof Error ? error.message : String(error)}`;
      return { ok: false, code: "wgsl_invalid", detail, diagnostics: [] };
    } finally {
      await device.popErrorScope();
    }
  }
  return { ok: true, pipelines };
}

function refusal(
  module: string,
  problem: GPUError | null,
  errors: readonly GPUCompilationMessage[],
): CompileRefusal {
  const diagnostics = errors.slice(0, 20).map(({ lineNum, linePos, message }) => ({
    module,
    line: lineNum,
    column: linePos,
    message: message.slice(0, 1_000),
  }));
  const lines = diagnostics.map(
    ({ line, column, message }) => `${module}.wgsl:${line}:${column}: ${message}`,
  );
  const detail =
    lines.length > 0 ? lines.join("\n") : `${module}.wgsl: ${problem?.message ?? "does not compile"}`;
  return { ok: false, code: "wgsl_invalid", detail, diagnostics };
}
