import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Finished, runCommand, startCommand } from "@gpux/cli/testing/command";
import { devnetAccount } from "@gpux/contracts/roles";
import { ECHO, echoWith } from "@gpux/durable-objects/testing/echo";
import { Address } from "@gpux/protocol/ids";
import { JobEvent, JobView } from "@gpux/protocol/job";
import { LeaseView, NodeView } from "@gpux/protocol/lease";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { FOREVER, shader } from "./testing/failing-jobs.ts";
import { type Market, openMarket, scene, until } from "./testing/market.ts";

// `gpux` as a person or a script runs it, against a whole market. What its talk looks like in detail is tested
// beside it (cli/bin.test.ts); here it is that it works, and which exit code says what (docs/cli.md).

const example = (name: string) => fileURLToPath(new URL(`../../examples/functions/${name}`, import.meta.url));

let market: Market;
let folder = "";
let wallet: Record<string, string> = {};

const Ran = z.strictObject({
  job: JobView,
  files: z.array(
    z.strictObject({ output: z.string(), path: z.string(), bytes: z.int(), sha256: z.string() }),
  ),
  receipt: z.strictObject({ verified: z.literal(true) }).nullable(),
});

/** Settings come from the environment alone: nothing of the machine's own configuration may count. */
const place = () => ({ GPUX_URL: market.edge.url, GPUX_CONFIG_DIR: folder });
const asConsumer = () => ({ ...place(), GPUX_PRIVATE_KEY: devnetAccount("consumer").privateKey });
const gpux = (...args: string[]) => runCommand(args, asConsumer());

function ok(finished: Finished): string {
  expect(finished).toMatchObject({ code: 0 });
  return finished.out;
}

async function saved(name: string, value: unknown): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, JSON.stringify(value));
  return path;
}

async function sha256(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-cli-e2e-"));
  market = await openMarket();
});
afterAll(async () => {
  await market?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("a wallet", () => {
  const withPassword = () => ({ ...place(), GPUX_PASSWORD: "correct horse" });

  test("is made, shown, and opened by its password alone", async () => {
    const made = z
      .strictObject({ address: Address, path: z.string() })
      .parse(JSON.parse(ok(await runCommand(["wallet", "new", "--json"], withPassword()))));
    expect(await readFile(made.path, "utf8")).not.toContain("correct horse");
    expect(JSON.parse(ok(await runCommand(["wallet", "show", "--json"], place())))).toEqual(made);
    const unlock = ["wallet", "show", "--unlock"];
    expect(ok(await runCommand(unlock, withPassword())).trim()).toBe(made.address);
    expect(await runCommand(unlock, { ...place(), GPUX_PASSWORD: "wrong" })).toMatchObject({ code: 3 });
    wallet = withPassword();
  });

  test("that holds no USDC cannot pay: 4", async () => {
    const poor = await runCommand(["run", await saved("poor.json", ECHO), "--input", "value=1"], wallet);
    expect(poor).toMatchObject({ code: 4, out: "" });
    expect(poor.err).toContain("insufficient_funds");
    // What was held for it is let go.
    await until(async () => {
      const nodes = z.array(NodeView).parse(JSON.parse(ok(await runCommand(["nodes", "--json"], place()))));
      return nodes[0]?.gpus_free === 1;
    }, "the node is free again");
  });
});

test("a price that nobody works for is refused: 4", async () => {
  const echo = await saved("echo.json", ECHO);
  const refused = await gpux("run", echo, "--input", "value=1", "--max-rate", "0.01");
  expect(refused).toMatchObject({ code: 4, err: expect.stringContaining("price_below_offers") });
});

test("nodes are listed for anyone", async () => {
  const nodes = z.array(NodeView).parse(JSON.parse(ok(await runCommand(["nodes", "--json"], place()))));
  expect(nodes).toMatchObject([{ id: devnetAccount("agent").address, status: "online" }]);
  const table = ok(await runCommand(["nodes"], place()));
  expect(table).toContain(nodes[0]?.gpus[0]?.model);
  expect(ok(await runCommand(["nodes", "--gpu", "NOBODY_HAS_IT"], place()))).toBe("no nodes\n");
});

describe("a job", () => {
  let traced: JobView;
  const noisy = () => join(folder, "room.png");

  test("runs from a folder, shows it on its way, and leaves its picture", async () => {
    const { json } = scene({ width: 64, height: 48, samples: 8 }).scene;
    const input = `scene=@${await saved("room.json", json)}`;
    const run = await gpux("run", example("pathtrace"), "--input", input, "--out", noisy(), "--json");
    const { job, files, receipt } = Ran.parse(JSON.parse(ok(run)));
    expect(files).toMatchObject([{ path: noisy(), sha256: await sha256(noisy()) }]);
    expect(job.outputs[0]?.sha256).toBe(files[0]?.sha256);
    expect(receipt).toEqual({ verified: true });
    expect(run.err).toContain("running on 0x");
    expect(run.err).toMatch(/\d+ %/);
    expect(run.err).toContain("signed by node and edge");
    traced = job;
  });

  test("takes a picture for input and uses the lease that is open", async () => {
    const clean = join(folder, "clean.png");
    const args = ["--input", `photo=@${noisy()}`, "--out", `image=${clean}`, "--json"];
    const { job } = Ran.parse(JSON.parse(ok(await gpux("run", example("denoise"), ...args))));
    expect(job.lease_id).toBe(traced.lease_id);
    expect(job.outputs[0]?.sha256).toBe(await sha256(clean));
    expect(await sha256(clean)).not.toBe(await sha256(noisy()));
  });

  test("is looked at and followed afterwards", async () => {
    const got = JobView.parse(JSON.parse(ok(await gpux("jobs", "get", traced.id, "--json"))));
    expect(got).toMatchObject({ id: traced.id, status: "succeeded", price: traced.price });
    expect(ok(await gpux("jobs", "get", traced.id))).toContain(traced.outputs[0]?.sha256);

    const lines = ok(await gpux("jobs", "events", traced.id, "--json"))
      .trim()
      .split("\n");
    const events = lines.map((line) => JobEvent.parse(JSON.parse(line)));
    const statuses = events.filter(({ type }) => type === "status").map(({ data }) => data.status);
    expect(statuses.at(0)).toBe("queued");
    expect(statuses).toEqual(expect.arrayContaining(["running", "succeeded"]));
    const after = events.at(-2)?.id ?? 0;
    const rest = ok(await gpux("jobs", "events", traced.id, "--after", `${after}`, "--json")).trim();
    expect(rest).toBe(lines.at(-1));
  });

  /** Keeps one core busy until it is killed. */
  const endless = async () => [
    (await shader({ client: market.client() }, FOREVER)).function,
    "--input",
    "value=1",
  ];

  test("that takes too long is left to itself: 124; then it can be canceled: 5", async () => {
    const left = await gpux("run", ...(await endless()), "--wait", "2");
    expect(left).toMatchObject({ code: 124, out: "" });
    const id = /gpux jobs cancel (job_\S+)/.exec(left.err)?.[1] ?? "";
    expect(JSON.parse(ok(await gpux("jobs", "get", id, "--json")))).toMatchObject({ status: "running" });
    expect(JSON.parse(ok(await gpux("jobs", "cancel", id, "--json")))).toMatchObject({ id });
    const canceled = await gpux("jobs", "get", id, "--wait", "30", "--json");
    expect(canceled.code).toBe(5);
    expect(JSON.parse(canceled.out)).toMatchObject({ id, status: "canceled" });
  });

  test("is canceled by Ctrl-C: 130", async () => {
    const { child, said, finished } = startCommand(["run", ...(await endless()), "--json"], asConsumer());
    await said("running on 0x");
    child.kill("SIGINT");
    const { code, out, err } = await finished;
    expect({ code, err }).toMatchObject({ code: 130, err: expect.stringContaining("Canceled job_") });
    expect(Ran.parse(JSON.parse(out)).job.status).toBe("canceled");
  });

  test("that fails by its own fault says why, costs nothing and leaves no file: 5", async () => {
    const broken = await saved("broken.json", echoWith({ modules: { main: "fn main() { return 1; }" } }));
    const out = join(folder, "nothing.bin");
    const failed = await gpux("run", broken, "--input", "value=1", "--out", out);
    expect(failed.code).toBe(5);
    expect(failed.err).toMatch(/wgsl_invalid \(tenant's fault\).*cost: 0\.00 USDC/s);
    await expect(readFile(out)).rejects.toThrow("ENOENT");
  });

  test.each([
    ["an input that the function has not: 2", 2, ["run", example("denoise"), "--input", "x=1"], "x"],
    ["a job that is not there: 1", 1, ["jobs", "get", "never-made"], "job_unknown"],
    ["an edge that is not there: 1", 1, ["nodes", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"],
  ] as const)("%s", async (_, code, args, text) => {
    const refused = await gpux(...args);
    expect(refused).toMatchObject({ code, err: expect.stringContaining(text) });
    expect(refused.err).not.toMatch(/^\s+at .*:\d+:\d+\)?$/m);
  });

  test("is nobody else's business, and nobody's without a wallet: 3", async () => {
    const other = await runCommand(["jobs", "get", traced.id, "--json"], wallet);
    expect(other.code).toBe(3);
    expect(JSON.parse(other.out)).toMatchObject({ error: { code: "forbidden", status: 403 } });
    const none = { ...place(), GPUX_CONFIG_DIR: join(folder, "nobody") };
    expect((await runCommand(["jobs", "get", traced.id], none)).code).toBe(3);
  });

  test("is paid when its lease is closed, and the rest comes back", async () => {
    const leases = z.array(LeaseView).parse(JSON.parse(ok(await gpux("leases", "list", "--json"))));
    expect(leases.map(({ id }) => id)).toEqual([traced.lease_id]);
    expect(ok(await gpux("leases", "list"))).toContain(traced.lease_id);
    const before = await market.ledger.balances();
    ok(await gpux("leases", "close", traced.lease_id));
    const get = async () =>
      LeaseView.parse(JSON.parse(ok(await gpux("leases", "get", traced.lease_id, "--json"))));
    // Asked by the SDK, not by a process each time.
    const { leases: known } = market.client();
    await until(
      async () =>
        (await known.get(traced.lease_id)).status === "closed" && (await market.ledger.owed()) === 0n,
      "the lease is closed and paid out",
    );
    const [{ spent, funded }, after] = [await get(), await market.ledger.balances()];
    expect(spent).toBeGreaterThanOrEqual(traced.price);
    expect(after.provider + after.fee_recipient - before.provider - before.fee_recipient).toBe(spent);
    expect(after.consumer - before.consumer).toBe(funded - spent);
    expect(ok(await gpux("leases", "list"))).toBe("no leases\n");
  });
});
