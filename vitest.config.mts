import { dirname } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { privateKeyToAddress } from "viem/accounts";
import { defineConfig } from "vitest/config";
import { unstable_getMiniflareWorkerOptions } from "wrangler";
import { bundleWorker } from "./scripts/worker-bundle.ts";
import { RELAYER_KEY } from "./test/setup/provided-context.ts";

// Wrangler's notes on secrets and settings would stand between the results.
process.env.WRANGLER_LOG ??= "error";

// Keys and addresses of the tests alone: nothing of value ever hangs on them.
const METER_KEY = `0x${"11".repeat(32)}` as const;
const chain = { CHAIN_ID: "31337", ESCROW: `0x${"e5".repeat(20)}` };
const bindings = {
  edge: {
    ...chain,
    TOKEN: `0x${"70".repeat(20)}`,
    TOKEN_NAME: "USD Coin",
    TOKEN_VERSION: "2",
    METER_ADDRESS: privateKeyToAddress(METER_KEY),
    FEE_RECIPIENT: `0x${"fe".repeat(20)}`,
    FEE_BPS: "500",
    RPC_URL: "http://127.0.0.1:9",
    PUBLIC_ORIGIN: "https://edge.test",
    SESSION_KEYS: `test:${"5e".repeat(32)}`,
    METRICS_TOKEN: "only-for-tests-0123456789abcdef01",
    CHALLENGE_AFTER_S: "0",
    BOOK_SHARDS: JSON.stringify({ SHARDED: 3 }),
  },
  relayer: {
    ...chain,
    RPC_URLS: "http://127.0.0.1:9",
    RELAYER_KEYS: RELAYER_KEY,
    // Small enough for tests to reach: where a chain calls every block final, nothing could be reorganised.
    POLICY: {
      safeDepth: 8,
      finalizedDepth: 16,
      replaceAfterMs: 500,
      feeCap: "15000000",
      watchEveryMs: 100,
      ratePerMinute: 3,
      looksPerMinute: 40,
    },
  },
  meter: { ...chain, METER_KEY },
};

/** The real Worker of `workers/<name>`, for the one under test to call by service binding. */
async function auxiliaryWorker(name: "relayer" | "meter") {
  const configPath = `workers/${name}/wrangler.toml`;
  const { main, workerOptions } = unstable_getMiniflareWorkerOptions(configPath);
  if (main === undefined) throw new Error(`${configPath} names no main`);
  return {
    ...workerOptions,
    name: `gpux-${name}`,
    bindings: bindings[name],
    modulesRoot: dirname(main),
    modules: await bundleWorker(main),
  };
}

/** A time-out ends a test that hangs; how busy the machine is must not decide. */
const patient = {
  testTimeout: 120_000,
  hookTimeout: 120_000,
  expect: { poll: { timeout: 60_000, interval: 20 } },
};

// Pure machines know no runtime, so they are tested where a test file starts fastest.
const machineTests = [
  "durable-objects/**/machine*.test.ts",
  "durable-objects/relay-key/{batch,flight,json-rpc,policy,rate,refusal}.test.ts",
];
// Whole benches need a machine for themselves, as whole stacks do; what they are made of is tested with the rest.
const benchTests = "bench/dispatch/*.test.ts";
const never = ["**/node_modules/**"];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "node",
          environment: "node",
          ...patient,
          include: [
            "protocol/**/*.test.ts",
            "test/foreign/**/*.test.ts",
            "agent/**/*.test.ts",
            "sdk/**/*.test.ts",
            "cli/**/*.test.ts",
            "contracts/*.test.ts",
            "scripts/**/*.test.{ts,mjs}",
            "examples/**/*.test.ts",
            "bench/**/*.test.ts",
            "test/foreign/**/*.test.ts",
            "test/simulation/**/*.test.ts",
            ...machineTests,
          ],
          exclude: [...never, benchTests],
        },
      },
      {
        // The edge and its Durable Objects inside the real workerd, beside the real relayer and meter.
        plugins: [
          cloudflareTest(async ({ inject }) => ({
            wrangler: { configPath: "./wrangler.toml" },
            miniflare: {
              cf: false,
              // Signatures that no key made are asked of the chain (ERC-1271).
              bindings: { ...bindings.edge, RPC_URL: inject("devnet").url },
              workers: await Promise.all([auxiliaryWorker("relayer"), auxiliaryWorker("meter")]),
            },
          })),
        ],
        test: {
          name: "edge",
          ...patient,
          globalSetup: "./test/setup/devnet.ts",
          include: ["durable-objects/**/*.test.ts", "workers/edge/**/*.test.ts"],
          exclude: [
            ...never,
            ...machineTests,
            "durable-objects/relay-key/**",
            "durable-objects/meter-lease/**",
          ],
        },
      },
      {
        plugins: [
          cloudflareTest(({ inject }) => {
            const { url, escrow } = inject("devnet");
            return {
              wrangler: { configPath: "./workers/relayer/wrangler.toml" },
              miniflare: { cf: false, bindings: { ...bindings.relayer, ESCROW: escrow, RPC_URLS: url } },
            };
          }),
        ],
        test: {
          name: "relayer",
          ...patient,
          globalSetup: "./test/setup/devnet.ts",
          include: ["workers/relayer/**/*.test.ts", "durable-objects/relay-key/**/*.test.ts"],
          // They share one chain and one key, and each file has storage of its own.
          fileParallelism: false,
          exclude: [...never, ...machineTests],
        },
      },
      {
        plugins: [
          cloudflareTest({
            wrangler: { configPath: "./workers/meter/wrangler.toml" },
            miniflare: { cf: false, bindings: bindings.meter },
          }),
        ],
        test: {
          name: "meter",
          ...patient,
          include: ["workers/meter/**/*.test.ts", "durable-objects/meter-lease/**/*.test.ts"],
          exclude: [...never, ...machineTests],
        },
      },
      {
        // Whole stacks: real processes, ports and chains. They wait more than they work, so two fit on two cores.
        test: {
          name: "e2e",
          environment: "node",
          include: ["test/e2e/**/*.test.ts", benchTests],
          exclude: never,
          maxWorkers: 2,
          ...patient,
          testTimeout: 300_000,
        },
      },
    ],
  },
});
