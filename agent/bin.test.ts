import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const PROGRAM = join(import.meta.dirname, "bin.ts");
const ESCROW = `0x${"e5".repeat(20)}`;
const PAYOUT = `0x${"aa".repeat(20)}`;
/** Nothing listens on the discard port. */
const NOWHERE = "http://127.0.0.1:9";
const INIT = [
  "--edge",
  NOWHERE,
  "--rpc",
  NOWHERE,
  "--payout",
  PAYOUT,
  "--chain-id",
  "10",
  "--escrow",
  ESCROW,
];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-bin-"));
});
afterAll(() => rm(folder, { recursive: true }));

function start(args: string[], environment: Record<string, string> = {}): ChildProcess {
  const { PATH = "", HOME = "" } = process.env;
  const env = { PATH, HOME, GPUX_AGENT_PASSWORD: "pass", ...environment };
  return spawn(process.execPath, [PROGRAM, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
}

async function run(args: string[], environment?: Record<string, string>) {
  const child = start(args, environment);
  if (child.stdout === null || child.stderr === null) throw new Error("no pipes");
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  return { out, err, code };
}

describe("gpux-agent", () => {
  test("init writes key and config once, and says what it wrote as JSON", async () => {
    const dir = join(folder, "new");
    const first = await run(["init", "--dir", dir, "--json", ...INIT, "--gpu-hour", "0.75"]);
    expect(first).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(first.out)).toMatchObject({
      payout: PAYOUT,
      address: expect.stringMatching(/^0x[0-9a-f]{40}$/),
    });
    const config = JSON.parse(await readFile(join(dir, "config.json"), "utf8"));
    expect(config).toMatchObject({ chain_id: 10, escrow: ESCROW, prices: { gpu_hour: "0.75" } });
    expect(await run(["init", "--dir", dir, ...INIT])).toMatchObject({ code: 2 });
  });

  test.each([
    { args: ["init", "--edge", NOWHERE], why: "Give --rpc, --payout" },
    {
      args: ["init", "--edge", NOWHERE, "--rpc", NOWHERE, "--payout", PAYOUT],
      why: "give --chain-id and --escrow",
    },
    { args: ["init", ...INIT, "--payout", "0x12"], why: "payout" },
    { args: ["init", ...INIT, "--password", "secret"], why: "unknown option" },
    { args: ["run"], why: "run gpux-agent init" },
  ])("$args refuses with exit code 2 and says: $why", async ({ args, why }) => {
    const [command = "", ...rest] = args;
    const { code, err } = await run([command, "--dir", join(folder, "none"), ...rest]);
    expect(code).toBe(2);
    expect(err).toContain(why);
    expect(err).not.toContain("    at ");
  });

  test("init takes another escrow than the known one of its chain only from its owner", async () => {
    const edge = createServer((_request, response) => {
      response.end(
        JSON.stringify({
          origin: NOWHERE,
          settlement: {
            chain_id: 10,
            escrow: ESCROW,
            token: ESCROW,
            token_name: "USD Coin",
            token_version: "2",
          },
          meter: ESCROW,
          fee_recipient: ESCROW,
          fee_bps: 0,
        }),
      );
    });
    await once(edge.listen(0, "127.0.0.1"), "listening");
    const address = edge.address();
    const url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
    const args = ["init", "--dir", join(folder, "trap"), "--edge", url, "--rpc", NOWHERE, "--payout", PAYOUT];
    expect(await run(args)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/the one known on chain 10 is 0x[0-9a-f]{40}.*--escrow/),
    });
    expect(await run([...args, "--escrow", ESCROW])).toMatchObject({ code: 0 });
    edge.close();
    edge.closeAllConnections();
  });

  test("run refuses a wrong password with 3, a misspelt key with 2, and status a folder without an agent", async () => {
    const dir = join(folder, "refusals");
    await run(["init", "--dir", dir, ...INIT]);
    expect(await run(["run", "--dir", dir], { GPUX_AGENT_PASSWORD: "guess" })).toMatchObject({ code: 3 });
    const path = join(dir, "config.json");
    await writeFile(path, (await readFile(path, "utf8")).replace('"region"', '"regoin"'));
    const misspelt = await run(["run", "--dir", dir]);
    expect(misspelt.code).toBe(2);
    expect(misspelt.err).toContain("regoin");
    expect(await run(["status", "--dir", dir])).toMatchObject({ code: 1 });
  });

  test("a folder that cannot be written is said in one line", async () => {
    const file = join(folder, "file");
    await writeFile(file, "");
    const { code, err } = await run(["init", "--dir", join(file, "dir"), ...INIT]);
    expect(code).toBe(1);
    expect(err.trim().split("\n")).toEqual([expect.stringMatching(/^gpux-agent: ENOTDIR/)]);
  });

  test("the first Ctrl-C drains, the second quits at once with 130, and status then says stopped", async () => {
    const dir = join(folder, "signals");
    await run(["init", "--dir", dir, ...INIT]);
    const agent = start(["run", "--dir", dir, "--json", "--adapter", "software"]);
    if (agent.stdout === null) throw new Error("no pipe");
    const ended = once(agent, "close");
    const seen: string[] = [];
    for await (const line of createInterface(agent.stdout)) {
      const { event } = JSON.parse(line);
      seen.push(event);
      if (event === "offline" && !seen.includes("draining")) agent.kill("SIGINT");
      if (event === "draining") agent.kill("SIGINT");
    }
    expect(await ended).toEqual([130, null]);
    expect(seen.slice(0, 2)).toEqual(["started", "offline"]);
    const status = await run(["status", "--dir", dir, "--json"]);
    expect(JSON.parse(status.out)).toMatchObject({ state: "stopped", jobs_ended: 0 });
  });
});
