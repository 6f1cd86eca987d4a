import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type {
  ExecutionEvents,
  ExecutionInput,
  ExecutionResult,
  ExecutionSuccess,
  Executor,
  FunctionJob,
} from "@gpux/agent/executors/executor";
import { createWebGpuExecutor } from "@gpux/agent/executors/webgpu/executor";
import { decodeImage, encodePng, type Rgba8 } from "@gpux/agent/executors/webgpu/images";
import { type FunctionManifest, LIMITS } from "@gpux/protocol/manifest";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { packFunction } from "./pack.ts";

const functions = fileURLToPath(new URL("./", import.meta.url));
// The machine that runs the tests may be busy, and its GPU is a CPU.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const forever = new AbortController().signal;

let cacheDir: string;
let executor: Executor<FunctionJob>;

beforeAll(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "gpux-functions-"));
  executor = createWebGpuExecutor({ cacheDir, adapter: "software" });
});

afterAll(async () => {
  await executor.close();
  await rm(cacheDir, { recursive: true, force: true });
});

function run(
  manifest: FunctionManifest,
  inputs: Record<string, ExecutionInput>,
  on: ExecutionEvents = {},
): Promise<ExecutionResult> {
  return executor.run({ manifest, inputs, limits: LIMITS }, on, forever);
}

function succeeded(result: ExecutionResult): ExecutionSuccess {
  if (!result.ok) throw new Error("detail" in result ? `${result.code}: ${result.detail}` : result.code);
  return result;
}

function pixelsOf(png: Uint8Array): Rgba8 {
  const decoded = decodeImage(png, { maxWidth: 1024, maxHeight: 1024 });
  if (!decoded.ok) throw new Error(decoded.detail);
  return decoded.image;
}

const number = (value: number): ExecutionInput => ({ kind: "number", value });
const file = (bytes: Uint8Array): ExecutionInput => ({ kind: "bytes", bytes });
const floats = (values: Float32Array) => file(new Uint8Array(values.buffer));

describe("the functions in examples/", () => {
  it("matmul agrees with a product computed here", async () => {
    const [n, k, m] = [33, 50, 17];
    const a = Float32Array.from({ length: n * k }, (_, i) => Math.sin(i));
    const b = Float32Array.from({ length: k * m }, (_, i) => Math.cos(3 * i));
    const manifest = await packFunction(join(functions, "matmul"));
    const { outputs } = succeeded(
      await run(manifest, { n: number(n), k: number(k), m: number(m), a: floats(a), b: floats(b) }),
    );
    const product = new Float32Array(outputs[0]?.bytes.slice().buffer ?? new ArrayBuffer(0));
    expect(product.length).toBe(n * m);
    let worst = 0;
    for (const [index, value] of product.entries()) {
      const row = Math.floor(index / m);
      let sum = 0;
      for (let i = 0; i < k; i += 1) sum += (a[row * k + i] ?? 0) * (b[i * m + (index % m)] ?? 0);
      worst = Math.max(worst, Math.abs(value - sum));
    }
    // 50 products of at most 1, each rounded to 24 bits.
    expect(worst).toBeLessThan(50 * 2 ** -23);
  });

  it("matmul refuses matrices that do not fit its shape", async () => {
    const manifest = await packFunction(join(functions, "matmul"));
    const inputs = {
      n: number(2),
      k: number(2),
      m: number(2),
      a: floats(new Float32Array(4)),
      b: floats(new Float32Array(3)),
    };
    expect(await run(manifest, inputs)).toMatchObject({ code: "input_invalid", fault: "tenant" });
  });

  it("pathtrace renders the sample room, tells its samples, and denoise calms it without losing its edges", async () => {
    const scene: Record<string, unknown> = JSON.parse(
      await readFile(join(functions, "pathtrace/room.json"), "utf8"),
    );
    const small = { ...scene, width: 64, height: 48, bounces: 2 };
    const manifest = await packFunction(join(functions, "pathtrace"));
    const told: [number, string | undefined][] = [];
    const render = async (samples: number) => {
      const value = { ...small, samples };
      const on: ExecutionEvents = { progress: (fraction, note) => told.push([fraction, note]) };
      const { outputs } = succeeded(await run(manifest, { scene: { kind: "json", value } }, on));
      return outputs[0]?.bytes ?? new Uint8Array();
    };
    const noisy = await render(4);
    expect(told.at(-1)).toEqual([1, "develop"]);
    expect(told.map(([fraction]) => fraction)).toEqual(
      told.map(([fraction]) => fraction).toSorted((x, y) => x - y),
    );
    expect(await render(4)).toEqual(noisy);

    const truth = pixelsOf(await render(48)).data;
    const denoise = await packFunction(join(functions, "denoise"));
    const calm = succeeded(await run(denoise, { photo: file(noisy) })).outputs[0]?.bytes ?? new Uint8Array();
    const picture = pixelsOf(calm);
    expect([picture.width, picture.height]).toEqual([64, 48]);
    const error = (pixels: ArrayLike<number>) =>
      truth.reduce((sum, value, index) => sum + (value - (pixels[index] ?? 0)) ** 2, 0) / truth.length;
    expect(error(picture.data)).toBeLessThan(0.8 * error(pixelsOf(noisy).data));
  });

  it("CKP-1 pathtrace that is interrupted goes on from its checkpoint to the very same picture", async () => {
    const scene: Record<string, unknown> = JSON.parse(
      await readFile(join(functions, "pathtrace/room.json"), "utf8"),
    );
    const value = { ...scene, width: 48, height: 32, bounces: 2, samples: 12 };
    const inputs: Record<string, ExecutionInput> = { scene: { kind: "json", value } };
    const manifest = await packFunction(join(functions, "pathtrace"));
    const whole = succeeded(await run(manifest, inputs)).outputs;

    let resume: Uint8Array | undefined;
    let pauses = 0;
    for (;;) {
      const pause = new AbortController();
      // Somewhere within the samples, on three machines.
      const progress = () => pauses < 3 && pause.abort();
      const job = { manifest, inputs, limits: LIMITS, ...(resume === undefined ? {} : { resume }) };
      const other = createWebGpuExecutor({ cacheDir, adapter: "software" });
      const result = await other.run(job, { progress }, forever, pause.signal);
      await other.close();
      if (result.ok) {
        expect(result.outputs).toEqual(whole);
        break;
      }
      if (result.code !== "paused") throw new Error(result.detail);
      resume = result.state;
      pauses += 1;
    }
    expect(pauses).toBe(3);
  });

  it("denoise keeps a clean edge sharp, and at strength 0 changes nothing", async () => {
    const data = Uint8Array.from({ length: 4 * 32 * 16 }, (_, i) =>
      i % 4 === 3 ? 255 : (i / 4) % 32 < 16 ? 40 : 200,
    );
    const manifest = await packFunction(join(functions, "denoise"));
    const png = file(encodePng({ width: 32, height: 16, data }));
    const pixels = async (photo: ExecutionInput, strength: number) => {
      const { outputs } = succeeded(await run(manifest, { photo, strength: number(strength) }));
      return pixelsOf(outputs[0]?.bytes ?? new Uint8Array());
    };
    expect((await pixels(png, 0)).data).toEqual(data);
    const smoothed = (await pixels(png, 1)).data;
    expect(data.every((value, index) => Math.abs(value - (smoothed[index] ?? 0)) <= 2)).toBe(true);
  });

  const wrong: [what: string, detail: RegExp, scene: ExecutionInput][] = [
    ["that is not JSON", /not JSON/, file(Buffer.from("{"))],
    ["that is a list", /must be an object/, { kind: "json", value: [] }],
    ["with a field of its own", /"fog"/, { kind: "json", value: { fog: 1 } }],
    ["that lacks a field", /camera.position is missing/, { kind: "json", value: {} }],
    ["with a camera that is a number", /camera must be an object/, { kind: "json", value: { camera: 7 } }],
    ["with half a pixel", /width must be a whole number/, { kind: "json", value: { width: 20.5 } }],
    ["too wide", /from 16 to 1024/, { kind: "json", value: { width: 4096 } }],
  ];
  it.each(wrong)("pathtrace refuses a scene %s", async (_what, detail, scene) => {
    const result = await run(await packFunction(join(functions, "pathtrace")), { scene });
    expect(result).toMatchObject({
      code: "input_invalid",
      fault: "tenant",
      detail: expect.stringMatching(detail),
    });
  });

  it.each([
    [
      "an unknown material",
      { radius: 1, material: "cheese" },
      /spheres\[0\].material must be one of diffuse, metal, glass, light/,
    ],
    ["a radius of nothing", { radius: 0 }, /spheres\[0\].radius/],
    ["a field of its own", { radius: 1, smell: 1 }, /spheres\[0\].smell/],
  ])("pathtrace refuses a sphere with %s", async (_what, sphere, detail) => {
    const camera = { position: [0, 0, 5], target: [0, 0, 0] };
    const value = { camera, spheres: [{ centre: [0, 0, 0], ...sphere }] };
    const result = await run(await packFunction(join(functions, "pathtrace")), {
      scene: { kind: "json", value },
    });
    expect(result).toMatchObject({ code: "input_invalid", detail: expect.stringMatching(detail) });
  });
});
