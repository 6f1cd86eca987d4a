import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type FunctionManifest, LIMITS, type Limits } from "@gpux/protocol/manifest";
import { encode } from "fast-png";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type {
  ExecutionEvents,
  ExecutionInput,
  ExecutionResult,
  ExecutionSuccess,
  Executor,
  FunctionJob,
} from "../executor.ts";
import { createWebGpuExecutor } from "./executor.ts";

// The machine that runs the tests may be busy, and its GPU is a CPU.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const forever = new AbortController().signal;

let cacheDir: string;
let executor: Executor<FunctionJob>;

beforeAll(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "gpux-executor-"));
  executor = createWebGpuExecutor({ cacheDir, adapter: "software" });
});

afterAll(async () => {
  await executor.close();
  await rm(cacheDir, { recursive: true, force: true });
});

function run(
  manifest: FunctionManifest,
  inputs: Record<string, ExecutionInput>,
  limits: Partial<Limits> = {},
  on: ExecutionEvents = {},
  signal = forever,
): Promise<ExecutionResult> {
  return executor.run({ manifest, inputs, limits: { ...LIMITS, ...limits } }, on, signal);
}

function succeeded(result: ExecutionResult): ExecutionSuccess {
  if (!result.ok) throw new Error("detail" in result ? `${result.code}: ${result.detail}` : result.code);
  return result;
}

const number = (value: number): ExecutionInput => ({ kind: "number", value });
const file = (bytes: Uint8Array): ExecutionInput => ({ kind: "bytes", bytes });

/** Adds `by` to each of the numbers given; `wgsl` replaces its shader. */
function adder(wgsl?: string): FunctionManifest {
  return {
    version: 1,
    name: "adder",
    description: "Adds a number to each element.",
    inputs: {
      a: { kind: "array", type: "u32", maxLength: 4096 },
      by: { kind: "number", type: "u32", min: 0, max: 1000, default: 1 },
    },
    buffers: {
      settings: { kind: "uniform", from: "struct", fields: [{ name: "by", type: "u32", value: "by" }] },
      a: { kind: "storage", from: "input", input: "a" },
    },
    modules: {
      main:
        wgsl ??
        `@group(0) @binding(0) var<uniform> by: u32;
         @group(0) @binding(1) var<storage, read_write> a: array<u32>;
         @compute @workgroup_size(64) fn run(@builtin(global_invocation_id) id: vec3u) {
           if (id.x < arrayLength(&a)) { a[id.x] += by; }
         }`,
    },
    passes: [
      {
        module: "main",
        entryPoint: "run",
        bindings: [
          { group: 0, binding: 0, buffer: "settings" },
          { group: 0, binding: 1, buffer: "a" },
        ],
        workgroups: [{ of: ["a.length"], per: 64 }, 1, 1],
      },
    ],
    outputs: [{ name: "sum", kind: "array", buffer: "a", type: "u32", length: "a.length" }],
  };
}

/** Hands back the picture that it is given. */
const PICTURE: FunctionManifest = {
  ...adder(
    "@group(0) @binding(0) var<storage, read_write> p: array<u32>; @compute @workgroup_size(1) fn run() { p[0] = p[0]; }",
  ),
  inputs: { photo: { kind: "image", maxWidth: 2048, maxHeight: 2048 } },
  buffers: { photo: { kind: "storage", from: "input", input: "photo" } },
  passes: [
    {
      module: "main",
      entryPoint: "run",
      bindings: [{ group: 0, binding: 0, buffer: "photo" }],
      workgroups: [1, 1, 1],
    },
  ],
  outputs: [{ name: "image", kind: "png", buffer: "photo", width: "photo.width", height: "photo.height" }],
};

const ENDLESS = adder(`
  @group(0) @binding(0) var<uniform> by: u32;
  @group(0) @binding(1) var<storage, read_write> a: array<u32>;
  @compute @workgroup_size(1) fn run() {
    loop { a[0] += by; if (by == 0u) { break; } }
  }`);
const THREE = file(new Uint8Array(Uint32Array.of(1, 2, 3).buffer));

async function expectAdderWorks(): Promise<void> {
  const { outputs } = succeeded(await run(adder(), { a: THREE, by: number(10) }));
  expect(new Uint32Array(outputs[0]?.bytes.slice().buffer ?? new ArrayBuffer(0))).toEqual(
    Uint32Array.of(11, 12, 13),
  );
}

/** Process ids of this process's GPU children. */
async function children(of = process.pid): Promise<number[]> {
  const { stdout } = await promisify(execFile)("ps", ["-eo", "pid=,ppid=,args="]);
  const rows = stdout
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  return rows
    .filter(
      ([, parent, ...args]) => Number(parent) === of && args.some((arg) => arg.endsWith("webgpu/child.ts")),
    )
    .map(([pid]) => Number(pid));
}

describe("what a tenant gets wrong", () => {
  const compiles = "@compute @workgroup_size(1) fn run() {}";
  const PNG = encode({ width: 8, height: 8, data: new Uint8Array(8 * 8 * 4), channels: 4 });
  const cut = PNG.slice(0, 40);
  const bomb = (() => {
    // 64x64 by its header, the pixels of 1024x1024 in its data.
    const big = encode({ width: 1024, height: 1024, data: new Uint8Array(1024 * 1024 * 4), channels: 4 });
    new DataView(big.buffer).setUint32(16, 64);
    new DataView(big.buffer).setUint32(20, 64);
    return big;
  })();
  const wide = encode({ width: 4000, height: 1, data: new Uint8Array(4000 * 4), channels: 4 });

  const table: [
    what: string,
    code: string,
    detail: RegExp,
    manifest: FunctionManifest,
    inputs: Record<string, ExecutionInput>,
    limits?: Partial<Limits>,
  ][] = [
    ["WGSL that does not parse", "wgsl_invalid", /^main\.wgsl:1:\d+: /, adder("fn run( {"), { a: THREE }],
    [
      "an entry point that is not there",
      "wgsl_invalid",
      /run/,
      adder(compiles.replace("run", "walk")),
      { a: THREE },
    ],
    ["a binding that the shader lacks", "manifest_invalid", /binding/i, adder(compiles), { a: THREE }],
    ["an input that the function lacks", "input_invalid", /"c"/, adder(), { a: THREE, c: number(1) }],
    ["an input that is missing", "input_invalid", /"a"/, adder(), {}],
    ["a number out of range", "input_invalid", /0 to 1000/, adder(), { a: THREE, by: number(1001) }],
    ["a number that is none", "input_invalid", /"by"/, adder(), { a: THREE, by: number(Number.NaN) }],
    ["half an element", "input_invalid", /u32/, adder(), { a: file(new Uint8Array(7)) }],
    ["too many elements", "input_invalid", /4096/, adder(), { a: file(new Uint8Array(4 * 4097)) }],
    ["inputs beyond the limit", "limit_exceeded", /inputs/, adder(), { a: THREE }, { inputBytes: 11 }],
    ["buffers beyond the limit", "limit_exceeded", /bytes/, adder(), { a: THREE }, { bufferBytes: 1024 }],
    [
      "an image that is text",
      "input_invalid",
      /neither a PNG nor a JPEG/,
      PICTURE,
      { photo: file(Buffer.from("hello")) },
    ],
    ["a PNG that is cut off", "input_invalid", /cut off/, PICTURE, { photo: file(cut) }],
    ["a PNG that inflates beyond its header", "input_invalid", /damaged/, PICTURE, { photo: file(bomb) }],
    ["an image wider than the function takes", "input_invalid", /4000x1/, PICTURE, { photo: file(wide) }],
    [
      "a JPEG of nothing",
      "input_invalid",
      /JPEG/,
      PICTURE,
      { photo: file(Uint8Array.of(0xff, 0xd8, 0xff, 0xd9)) },
    ],
  ];

  it.each(table)("%s is %s", async (_what, code, detail, manifest, inputs, limits) => {
    const result = await run(manifest, inputs, limits);
    expect(result).toMatchObject({ ok: false, code, fault: "tenant", detail: expect.stringMatching(detail) });
  });

  it("tells where the compiler stopped", async () => {
    const result = await run(adder("\n  fn run() -> u32 { return 1.5; }"), { a: THREE });
    expect(result).toMatchObject({ diagnostics: [{ module: "main", line: 2, column: expect.any(Number) }] });
  });
});

/** A chain of numbers: each of its passes makes the next from the last, so that none can be left out or done twice. */
const STEPS = 40;
const CHAIN: FunctionManifest = {
  ...adder(`
    @group(0) @binding(0) var<uniform> by: vec2u;
    @group(0) @binding(1) var<storage, read_write> a: array<u32>;
    @compute @workgroup_size(64) fn run(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < arrayLength(&a)) { a[id.x] = a[id.x] * 3u + by.x + by.y; }
    }
    @compute @workgroup_size(64) fn twist(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < arrayLength(&a)) { a[id.x] ^= 5u; }
    }`),
  buffers: {
    settings: {
      kind: "uniform",
      from: "struct",
      fields: [
        { name: "by", type: "u32", value: "by" },
        { name: "at", type: "u32", value: "$iteration" },
      ],
    },
    a: { kind: "storage", from: "input", input: "a" },
    unused: { kind: "storage", from: "zero", bytes: 65_536 },
  },
  passes: [
    { ...passOf(adder()), repeat: STEPS },
    { ...passOf(adder()), entryPoint: "twist", bindings: passOf(adder()).bindings.slice(1) },
    { ...passOf(adder()), repeat: STEPS },
  ],
};

function passOf({ passes: [pass] }: FunctionManifest): FunctionManifest["passes"][number] {
  if (pass === undefined) throw new Error("a function has passes");
  return pass;
}

/** Runs until so many dispatches have been told of, and goes on from there, as often as that. */
async function interrupted(
  manifest: FunctionManifest,
  inputs: Record<string, ExecutionInput>,
  times: number,
) {
  let resume: Uint8Array | undefined;
  const states: Uint8Array[] = [];
  for (;;) {
    const pause = new AbortController();
    if (states.length < times) pause.abort();
    const job = { manifest, inputs, limits: LIMITS, ...(resume === undefined ? {} : { resume }) };
    const result = await executor.run(job, {}, forever, pause.signal);
    if (result.ok || result.code !== "paused") return { result, states };
    resume = result.state;
    states.push(result.state);
  }
}

describe("CKP-1 a job that is paused", () => {
  const ten = {
    a: file(new Uint8Array(Uint32Array.from({ length: 10 }, (_, i) => i).buffer)),
    by: number(7),
  };

  it("ends between two dispatches, and goes on from there to the output of one that was not", async () => {
    const { outputs } = succeeded(await run(CHAIN, ten));
    const { result, states } = await interrupted(CHAIN, ten, 2 * STEPS);
    expect(states.length).toBeGreaterThanOrEqual(STEPS);
    expect(succeeded(result).outputs).toEqual(outputs);
    // Of the buffers, the one that was written: neither a uniform nor what is as it was.
    for (const state of states) expect(state.length).toBeLessThan(400);
  });

  it("ends as it would have when nothing is left to do", async () => {
    const pause = new AbortController();
    pause.abort();
    const job = { manifest: adder(), inputs: { a: THREE }, limits: LIMITS };
    expect(await executor.run(job, {}, forever, pause.signal)).toMatchObject({ ok: true });
  });

  it("is not when its buffers are more than one object holds", async () => {
    const pause = new AbortController();
    pause.abort();
    const job = { manifest: CHAIN, inputs: ten, limits: { ...LIMITS, outputBytes: 20_000 } };
    expect(await executor.run(job, {}, forever, pause.signal)).toMatchObject({ ok: true });
  });

  it("begins at the beginning with what is no checkpoint of it", async () => {
    const { outputs } = succeeded(await run(CHAIN, ten));
    const { states } = await interrupted(CHAIN, ten, 1);
    const state = states[0] ?? new Uint8Array();
    const wrong = [
      new Uint8Array(),
      new TextEncoder().encode("nothing of the kind"),
      state.slice(0, -1),
      Buffer.concat([state, Uint8Array.of(0)]),
      Buffer.from(Buffer.from(state).toString("latin1").replace('"pass":0', '"pass":9'), "latin1"),
      Buffer.from(Buffer.from(state).toString("latin1").replace('"a"', '"b"'), "latin1"),
      ...(await interrupted({ ...CHAIN, name: "another" }, ten, 1)).states,
      ...(await interrupted(CHAIN, { ...ten, a: file(new Uint8Array(400)) }, 1)).states,
    ];
    for (const resume of wrong) {
      const job = { manifest: CHAIN, inputs: ten, limits: LIMITS, resume: new Uint8Array(resume) };
      expect(succeeded(await executor.run(job, {}, forever)).outputs).toEqual(outputs);
    }
    expect(wrong).toHaveLength(8);
  });
});

describe("jobs that must be stopped", () => {
  it("kills an endless shader at its wall limit, and the next job runs", async () => {
    expect(await run(ENDLESS, { a: THREE }, { wallMs: 300 })).toMatchObject({
      code: "execution_timeout",
      fault: "tenant",
    });
    await expectAdderWorks();
  });

  it("cancels a running job at once, a waiting one too, and the next job runs", async () => {
    const running = new AbortController();
    const waiting = new AbortController();
    const begun = Promise.withResolvers<void>();
    const first = run(ENDLESS, { a: THREE }, {}, { started: () => begun.resolve() }, running.signal);
    const second = run(adder(), { a: THREE }, {}, {}, waiting.signal);
    const third = run(adder(), { a: THREE });
    await begun.promise;
    waiting.abort();
    expect(await second).toMatchObject({ code: "canceled" });
    running.abort();
    expect(await first).toMatchObject({ code: "canceled", fault: "tenant" });
    expect(await third).toMatchObject({ ok: true });
  });

  it("reports a GPU process that dies as the provider's fault, and the next job runs", async () => {
    const begun = Promise.withResolvers<void>();
    const job = run(ENDLESS, { a: THREE }, {}, { started: () => begun.resolve() });
    await begun.promise;
    for (const pid of await children()) process.kill(pid, "SIGKILL");
    expect(await job).toMatchObject({ code: "executor_failed", fault: "provider" });
    await expectAdderWorks();
  });

  it("runs thirty jobs in one process", async () => {
    await expectAdderWorks();
    const before = await children();
    for (let job = 0; job < 30; job += 1) await expectAdderWorks();
    expect(before).toHaveLength(1);
    expect(await children()).toEqual(before);
  });

  it("leaves no process when the parent is killed in the middle of an endless shader", async () => {
    const script = `
      import { createWebGpuExecutor } from ${JSON.stringify(new URL("./executor.ts", import.meta.url).href)};
      const executor = createWebGpuExecutor({ cacheDir: ${JSON.stringify(cacheDir)}, adapter: "software" });
      await executor.describe();
      const job = ${JSON.stringify({ manifest: ENDLESS, limits: LIMITS })};
      const inputs = { a: { kind: "bytes", bytes: new Uint8Array(12) }, by: { kind: "number", value: 1 } };
      executor.run({ ...job, inputs }, { started: () => console.log("started") }, new AbortController().signal);`;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(parent.stdout, "data");
    const [child] = await children(parent.pid);
    if (child === undefined) throw new Error("the GPU process is not there");
    parent.kill("SIGKILL");
    await once(parent, "exit");
    await expect.poll(() => alive(child)).toBe(false);
  });

  it("describes a software device, and after close() has no process and answers as closing", async () => {
    expect(await executor.describe()).toMatchObject({ software: true, backend: "vulkan" });
    await executor.close();
    expect(await children()).toEqual([]);
    expect(await run(adder(), { a: THREE })).toMatchObject({ code: "executor_failed", fault: "provider" });
  });
});

/** A zombie waits for whoever adopted it and counts as gone. */
async function alive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !/\) Z /.test(stat);
}
