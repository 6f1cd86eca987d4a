import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { wire } from "@gpux/sdk/testing/market";
import { frame, refuse, type ScriptedEdge } from "@gpux/sdk/testing/scripted-edge";
import { afterEach, beforeEach, expect, it } from "vitest";
import { main } from "./program.ts";
import { startEdge } from "./testing/edge-server.ts";
import { NEGATE } from "./testing/negate.ts";
import { createScreen } from "./testing/screen.ts";

const KEY = `0x${"c0".repeat(32)}`;
const QUEUED = frame(1, "status", { status: "queued" });
const RUNNING = frame(2, "status", { status: "running", attempt: 1 });
const HALF = frame(2, "progress", { fraction: 0.5, note: "pass 1" });
const DONE = frame(3, "status", { status: "succeeded" });
let folder = "";
let url = "";
let edge: ScriptedEdge;
let stop: () => Promise<void>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-program-"));
  ({ url, edge, stop } = await startEdge());
  edge.streams = [QUEUED + RUNNING + HALF + DONE];
  await writeFile(join(folder, "negate.json"), JSON.stringify(NEGATE));
  await writeFile(join(folder, "in.png"), new Uint8Array([137, 80, 78, 71]));
});
afterEach(async () => {
  await stop();
  await rm(folder, { recursive: true });
});

async function runCommand(args: readonly string[], environment: Record<string, string>) {
  const screen = createScreen(environment);
  const code = await main(args, screen.terminal);
  return { code, out: screen.out(), err: screen.err() };
}
const gpux = (...args: string[]) =>
  runCommand(args, { GPUX_URL: url, GPUX_PRIVATE_KEY: KEY, GPUX_CONFIG_DIR: folder });
const inputs = ["--input", "rounds=2", "--input", "a=1,2", "--input", 'scene={"fov":40}'];
const runArgs = (...more: string[]) => [
  "run",
  join(folder, "negate.json"),
  ...inputs,
  "--input",
  `photo=@${join(folder, "in.png")}`,
  ...more,
];

it.each([
  ["an unknown command", ["fly"], 2],
  ["an unknown flag", ["nodes", "--colour"], 2],
  ["a missing argument", ["run"], 2],
  ["a function that is not there", ["run", "/nowhere"], 2],
  ["a price that is none", ["run", ".", "--max-price", "cheap"], 2],
  ["an allowance that is none", ["run", ".", "--allow-ahead", "far"], 2],
  ["a wait that is none", ["run", ".", "--wait", "soon"], 2],
  ["a number of nodes that is none", ["leases", "open", "--nodes", "some"], 2],
  ["a duration that is none", ["leases", "open", "--duration", "for ever"], 2],
  ["an auto top-up without a limit", ["leases", "auto-topup", "lse_x"], 2],
  ["a deposit of nothing", ["credit", "deposit", "0"], 2],
  ["a spread that is none", ["leases", "open", "--spread", "wide"], 2],
  ["help", ["run", "--help"], 0],
  ["version", ["--version"], 0],
])("ends %s with its code and without a stack trace", async (_, args, code) => {
  const finished = await gpux(...args);
  expect(finished.code).toBe(code);
  expect(finished.err).not.toMatch(/^\s+at /m);
});

it.each([
  ["run"],
  ["jobs", "get"],
  ["jobs", "events"],
  ["jobs", "cancel"],
  ["leases", "open"],
  ["leases", "list"],
  ["leases", "get"],
  ["leases", "topup"],
  ["leases", "extend"],
  ["leases", "auto-topup"],
  ["leases", "close"],
  ["credit", "deposit"],
  ["credit", "show"],
  ["credit", "release"],
  ["nodes"],
  ["offers"],
  ["wallet", "new"],
  ["wallet", "show"],
  ["rescue", "status"],
  ["rescue", "exit"],
  ["rescue", "reclaim"],
  ["rescue", "withdraw"],
  ["rescue", "send"],
])("shows an example in the help of %s %s", async (...args) => {
  expect((await gpux(...args, "--help")).out).toContain(`$ gpux ${args.join(" ")}`);
});

it("checks outputs before it pays", async () => {
  const { code, err } = await gpux(...runArgs("--out", join(folder, "none", "room.png")));
  expect(code).toBe(2);
  expect(err).toContain("cannot be written");
  expect(edge.routes()).toEqual([]);
});

it("ends a payment above the caller's limits with 4, and a refusal of the key with 3", async () => {
  expect((await gpux(...runArgs("--deposit", "0.01"))).code).toBe(4);
  expect((await gpux(...runArgs("--max-rate", "1"))).code).toBe(4);
  edge.script("GET /v1/leases", () => refuse("forbidden"));
  expect((await gpux("leases", "list")).code).toBe(3);
});

it("prints a refusal's title, hint, code and request id, as JSON where asked", async () => {
  const id = edge.quote.lease_id;
  const plain = await gpux("leases", "get", id);
  expect(plain.err).toContain(
    "error: There is no such lease\n  hint: Check the id.\n  code: lease_unknown  request: req_test",
  );
  const json = await gpux("leases", "get", id, "--json");
  expect(JSON.parse(json.out)).toMatchObject({ error: { code: "lease_unknown", request_id: "req_test" } });
  expect([plain.code, json.code]).toEqual([1, 1]);
});

it("searches offers as Vast's command line does, and says why there is none", async () => {
  const search = "gpu_name=RTX_4090 num_gpus>=4 reliability>0.98";
  expect((await gpux("offers", search, "-o", "dph_total")).out).toMatch(/NODE.*\n0x.*1x SWIFTSHADER.*3\.60/);
  expect(decodeURIComponent(edge.seen.at(-1)?.query ?? "")).toBe(
    "?gpu_name=RTX_4090&num_gpus[gte]=4&reliability[gt]=0.98&order=dph_total",
  );
  const blockers = { vram: 2, price: 7 };
  const none = { object: "list", data: [], has_more: false, blockers, wait: { possible: true, blockers } };
  edge.script("GET /v1/offers", async () => Response.json(none));
  const empty = await gpux("offers");
  expect([empty.code, empty.out]).toEqual([0, ""]);
  expect(empty.err).toContain("price 7, vram 2. Waiting may help");
  expect(await gpux("offers", "num_gpus about 4")).toMatchObject({ code: 2, out: "" });
});

it("shows nodes, leases and jobs as tables and as JSON", async () => {
  await gpux(...runArgs());
  const [job] = edge.jobs.keys();
  const id = edge.quote.lease_id;
  expect((await gpux("nodes")).out).toMatch(/NODE.*\n0x.*SWIFTSHADER.*3\.60/);
  expect(JSON.parse((await gpux("nodes", "--gpu", "RTX_4090", "--json")).out)).toEqual([]);
  expect((await gpux("leases", "list")).out).toContain(id);
  const before = BigInt(edge.lease?.amount ?? 0n);
  expect((await gpux("leases", "topup", id, "2.5")).code).toBe(0);
  expect(edge.lease?.amount).toBe(before + 2_500_000n);
  expect((await gpux("leases", "topup", id, "much")).code).toBe(2);
  expect((await gpux("leases", "extend", id, "1.5", "--add", "0.5")).code).toBe(0);
  expect(edge).toMatchObject({ extendedS: 5_400, lease: { amount: before + 3_000_000n } });
  expect((await gpux("leases", "extend", id, "25")).code).toBe(2);
  expect(JSON.parse((await gpux("leases", "close", id, "--json")).out)).toMatchObject({
    id,
    status: "closing",
  });
  expect((await gpux("jobs", "get", job ?? "")).out).toContain("succeeded");
  const events = (await gpux("jobs", "events", job ?? "", "--json")).out.trim().split("\n");
  expect(events.map((line) => JSON.parse(line).type)).toEqual(["status", "status", "progress", "status"]);
});

it("opens leases by an order, and says what it is about to sign", async () => {
  const order = {
    id: `ord_${"a".repeat(32)}`,
    object: "order",
    spread: "distinct-provider",
    quotes: [wire.quote(edge.quote)],
    funding: { lease_hashes: [edge.quote.lease_hash], amounts: ["2000000"], total: "2000000" },
    leases: [{ id: edge.quote.lease_id, node: edge.quote.text.node, status: "active", funded: "2000000" }],
    expires_at: edge.quote.expires_at,
    created_at: edge.quote.expires_at,
  };
  for (const status of ["quoted", "open"])
    edge.script("POST /v1/leases", () => Response.json({ ...order, status }, { status: 201 }));
  const { code, out, err } = await gpux("leases", "open", "--amount", "2");
  expect(err).toContain("1 hold, for 3.60 USDC per hour in all; signing 2.00 USDC into escrow");
  expect(out).toMatch(/LEASE.*\nlse_\S+ +active .*1 x SWIFTSHADER +2\.00 +3\.60/);
  expect(code).toBe(0);
});

it("says where it tried to connect when nobody is there", async () => {
  await stop();
  const { code, err } = await gpux("nodes");
  expect(code).toBe(1);
  expect(err).toContain("code: network");
  expect(err).toContain(url);
  stop = async () => {};
});

// Scrypt at its full cost, three times over.
it("makes a wallet, shows its address without the password, and opens it with it", async () => {
  const locked = { GPUX_URL: url, GPUX_CONFIG_DIR: join(folder, "config"), GPUX_PASSWORD: "correct horse" };
  const made = await runCommand(["wallet", "new", "--json"], locked);
  expect(made.code).toBe(0);
  const { address, path } = JSON.parse(made.out);
  const { GPUX_PASSWORD: _, ...without } = locked;
  expect((await runCommand(["wallet", "show"], without)).out.trim()).toBe(address.toLowerCase());
  expect((await runCommand(["wallet", "show", "--unlock"], locked)).out.trim()).toBe(address);
  expect((await runCommand(["wallet", "show", "--unlock"], { ...locked, GPUX_PASSWORD: "wrong" })).code).toBe(
    3,
  );
  expect((await runCommand(["wallet", "new"], locked)).code).toBe(3);
  expect(await readFile(path, "utf8")).not.toContain("correct horse");
  const nobody = await runCommand(["leases", "list"], without);
  expect([nobody.code, nobody.err]).toEqual([3, expect.stringContaining("GPUX_PASSWORD")]);
});

it("ALW-1 allows the job that it runs, or with --allow-ahead later ones too, which then sign for nothing", async () => {
  const brought = () =>
    edge.seen
      .filter(({ route }) => route === "POST /v1/jobs")
      .map(({ body }) => JSON.parse(body).allowance?.cumulative);
  expect(await gpux(...runArgs())).toMatchObject({ code: 0 });
  expect(await gpux(...runArgs("--allow-ahead", "0.2"))).toMatchObject({ code: 0 });
  expect(await gpux(...runArgs())).toMatchObject({ code: 0 });
  // Each may cost 50,000 and uses 40,000; what a run does not know to be allowed it finds out by asking.
  expect(brought()).toEqual([undefined, "50000", undefined, "290000", undefined]);
});

it("deposits into credit once, and the next run is paid from it", async () => {
  const deposited = await gpux("credit", "deposit", "2");
  expect(deposited).toMatchObject({ code: 0, err: expect.stringContaining("2.00 USDC into credit") });
  expect(deposited.out).toContain("2.00 USDC");
  expect(await gpux(...runArgs())).toMatchObject({ code: 0 });
  const shown = await gpux("credit", "show", "--json");
  expect(JSON.parse(shown.out)).toMatchObject({ object: "credit", balance: "1100000" });
});
