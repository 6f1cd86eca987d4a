import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { frame, refuse, type ScriptedEdge } from "@gpux/sdk/testing/scripted-edge";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { runCommand, startCommand } from "./testing/command.ts";
import { startEdge } from "./testing/edge-server.ts";
import { NEGATE } from "./testing/negate.ts";

const KEY = `0x${"c0".repeat(32)}`;
const QUEUED = frame(1, "status", { status: "queued" });
const RUNNING = frame(2, "status", { status: "running", attempt: 1 });
const HALF = frame(2, "progress", { fraction: 0.5, note: "pass 1" });
const DONE = frame(3, "status", { status: "succeeded" });

// A process takes a second or two to start on a busy machine.
vi.setConfig({ testTimeout: 60_000 });

let folder = "";
let url = "";
let edge: ScriptedEdge;
let stop: () => Promise<void>;
const inputs = ["--input", "rounds=2", "--input", "a=1,2", "--input", 'scene={"fov":40}'];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-cli-"));
  ({ url, edge, stop } = await startEdge());
  edge.streams = [QUEUED + RUNNING + HALF + DONE];
  const { modules, ...manifest } = NEGATE;
  await writeFile(
    join(folder, "function.json"),
    JSON.stringify({ ...manifest, modules: { main: "main.wgsl" } }),
  );
  await writeFile(join(folder, "main.wgsl"), modules.main ?? "");
  await writeFile(join(folder, "in.png"), new Uint8Array([137, 80, 78, 71]));
});
afterEach(async () => {
  await stop();
  await rm(folder, { recursive: true });
});

const environment = (more: Record<string, string> = {}) => ({
  GPUX_URL: url,
  GPUX_PRIVATE_KEY: KEY,
  GPUX_CONFIG_DIR: folder,
  ...more,
});
const gpux = (...args: string[]) => runCommand(args, environment());
const runArgs = (...more: string[]) => [
  "run",
  folder,
  ...inputs,
  "--input",
  `photo=@${join(folder, "in.png")}`,
  ...more,
];

it("runs a function from its folder: pays, shows it on its way, writes the result and checks the receipt", async () => {
  const image = join(folder, "room.png");
  const { code, out, err } = await gpux(...runArgs("--out", image));
  expect(err).toContain("running on 0x");
  expect(err).toContain("50 % · pass 1");
  expect(err).toContain("0.04 USDC");
  expect(err).toContain("signed by node and edge");
  expect({ code, out }).toEqual({ code: 0, out: "" });
  expect(await readFile(image, "utf8")).toBe("a picture");
  expect((await readdir(folder)).filter((name) => name.endsWith(".part"))).toEqual([]);
  expect(edge.lease?.allowance).toBe(50_000n);
});

it("prints data alone on stdout with --json, also to stdout by --out -", async () => {
  const image = join(folder, "room.png");
  const { code, out } = await gpux(...runArgs("--json", "--out", `image=${image}`, "--max-price", "0.06"));
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({
    job: { status: "succeeded", price: "40000", max_price: "60000" },
    files: [{ output: "image", path: image, bytes: 9 }],
    receipt: { verified: true },
  });
  expect((await gpux(...runArgs("--out", "-"))).out).toBe("a picture");
});

it("ends a failed job with 5, its compiler's message and nothing written", async () => {
  edge.outcome = "failed";
  edge.streams = [QUEUED + frame(3, "status", { status: "failed" })];
  const hint = "See detail.";
  edge.failure = {
    code: "wgsl_invalid",
    title: "The shader does not compile",
    hint,
    fault: "tenant",
    detail: "3:5 expected ';'",
  };
  const { code, err } = await gpux(...runArgs("--out", join(folder, "room.png")));
  expect(code).toBe(5);
  expect(err).toContain("3:5 expected ';'");
  expect(err).toContain("wgsl_invalid (tenant's fault)");
  expect(await readdir(folder)).not.toContain("room.png");
});

it("does not take a receipt that does not hold for a success", async () => {
  edge.script(`GET /v1/leases/${edge.quote.lease_id}`, () => refuse("lease_unknown"));
  expect((await gpux(...runArgs())).code).toBe(1);
});

it("cancels the job at Ctrl-C, says so and ends with 130", async () => {
  edge.outcome = "canceled";
  let asked = 0;
  edge.streams = [QUEUED];
  const { child, said, finished } = startCommand(runArgs(), environment());
  await said("queued");
  edge.streams = [QUEUED + frame(3, "status", { status: "canceled" })];
  child.kill("SIGINT");
  const { code, err } = await finished;
  asked = edge.routes().filter((route) => route.endsWith("/cancel")).length;
  expect({ code, asked }).toEqual({ code: 130, asked: 1 });
  expect(err).toContain("Canceled job_");
});

it("gives up waiting after --wait with 124 and names the job", async () => {
  edge.streams = [QUEUED];
  edge.outcome = "running";
  const { code, err } = await gpux(...runArgs("--wait", "1"));
  expect(code).toBe(124);
  expect(err).toMatch(/gpux jobs cancel job_/);
});
