import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { configOf, loadConfig, saveConfig } from "./config.ts";
import { configWith } from "./fixtures.ts";

const text = {
  edge: "https://gpux.example",
  rpc: "https://rpc.example",
  chain_id: 10,
  escrow: `0x${"e5".repeat(20)}`,
  payout: `0x${"AA".repeat(20)}`,
  prices: { gpu_hour: "0.60" },
  region: "eu-west",
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-config-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("config", () => {
  test("reads prices as USDC and addresses in any case", () => {
    const outcome = configOf(text, {});
    expect(outcome).toMatchObject({
      ok: true,
      config: { payout: text.payout.toLowerCase(), prices: { gpu_hour: 600_000n, core_hour: 0n } },
    });
  });

  test.each([
    { change: { gpu_price: "1" }, names: "gpu_price" },
    { change: { prices: { gpu_hour: "0.60", gpu: "1" } }, names: "gpu" },
    { change: { prices: { gpu_hour: 0.6 } }, names: "gpu_hour" },
    { change: { prices: { gpu_hour: "0.0000001" } }, names: "gpu_hour" },
    { change: { edge: "ftp://gpux.example" }, names: "edge" },
    { change: { payout: "0x12" }, names: "payout" },
    { change: { max_fee_bps: 5_001 }, names: "max_fee_bps" },
    { change: { meters: [] }, names: "meters" },
    { change: { region: "Berlin!" }, names: "region" },
    { change: { yieldable_prices: { gpu_hour: "0.61" } }, names: "yieldable_prices.gpu_hour" },
    { change: { start_price: "0.11" }, names: "start_price" },
    { change: { start_price: "0.06", yieldable_prices: { gpu_hour: "0.30" } }, names: "start_price" },
    { change: { min_lease_minutes: 61, max_lease_hours: 1 }, names: "min_lease_minutes" },
    { change: { features: ["CUDA 12"] }, names: "features" },
    { change: { gpus_per_lease: 0 }, names: "gpus_per_lease" },
  ])("refuses $change and names the key", ({ change, names }) => {
    const outcome = configOf({ ...text, ...change }, {});
    expect(outcome.ok).toBe(false);
    expect(!outcome.ok && outcome.detail).toContain(names);
  });

  test("the environment stands over the file, and is checked like it", () => {
    const environment = { GPUX_AGENT_GPU_HOUR: "1.5", GPUX_AGENT_CONCURRENCY: "2", GPUX_AGENT_RPC: "" };
    expect(configOf(text, environment)).toMatchObject({
      ok: true,
      config: { rpc: text.rpc, concurrency: 2, prices: { gpu_hour: 1_500_000n } },
    });
    expect(configOf(text, { GPUX_AGENT_CONCURRENCY: "many" }).ok).toBe(false);
  });

  test("what is saved is what is loaded", async () => {
    const path = join(folder, "config.json");
    const config = configWith({ start_price: "0.05", meters: [`0x${"ee".repeat(20)}`], max_fee_bps: 250 });
    await saveConfig(path, config);
    expect(await loadConfig(path, {})).toEqual({ ok: true, config });
    await writeFile(path, `${await readFile(path, "utf8")}x`);
    expect(await loadConfig(path, {})).toMatchObject({ ok: false });
    expect(await loadConfig(join(folder, "none.json"), {})).toMatchObject({ ok: false });
  });
});
