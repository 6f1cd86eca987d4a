import { open, readFile, rename } from "node:fs/promises";
import { Address } from "@gpux/protocol/ids";
import { LIMITS, Limits } from "@gpux/protocol/manifest";
import { formatAmount, parseAmount } from "@gpux/protocol/money";
import { Feature, ModelName, Region } from "@gpux/protocol/resources";
import { mostStart } from "@gpux/protocol/tariff";
import { z } from "zod";

/** Text as people write it (`"0.60"`), base units in code. */
const Usdc = z.codec(
  // Aborts, for what is no amount cannot be held against other prices.
  z.string().refine((text) => parseAmount(text) !== null, {
    error: "USDC as a decimal string, such as 0.60",
    abort: true,
  }),
  z.bigint(),
  { decode: (text) => parseAmount(text) ?? 0n, encode: (amount) => formatAmount(amount) },
);

const PricesInUsdc = z.strictObject({
  gpu_hour: Usdc,
  core_hour: Usdc.prefault("0"),
  gb_hour: Usdc.prefault("0"),
});

const HttpUrl = z.url({ protocol: /^https?$/, error: "an http or https URL" });

const Keys = z.strictObject({
  /** The marketplace's public URL. */
  edge: HttpUrl,
  /** A JSON-RPC node of the owner's choice: what the agent believes about money, it reads here. */
  rpc: HttpUrl,
  chain_id: z.int().min(1),
  escrow: Address,
  /** Where earnings go; no key of it lies on this machine. */
  payout: Address,
  prices: PricesInUsdc,
  /** In the yieldable tier: cheaper, and you may take the GPU back. Not sold there when left out. */
  yieldable_prices: PricesInUsdc.optional(),
  /** What the start of a lease costs, once, in either tier; at most ten minutes of your GPU's price. */
  start_price: Usdc.prefault("0"),
  region: Region,
  /** The most GPUs that one lease may have; all of them when left out. */
  gpus_per_lease: z.int().min(1).max(64).optional(),
  /** What this machine can do beside what its executors say, such as cuda-12. */
  features: z.array(Feature).max(32).default([]),
  /** Models that you keep loaded, as people ask for them. */
  models: z.array(ModelName).max(64).default([]),
  /** Jobs that run at once on this machine. */
  concurrency: z.int().min(1).max(64).default(1),
  /** The highest marketplace fee that terms may have, in hundredths of a percent. */
  max_fee_bps: z.int().min(0).max(5_000).default(1_000),
  /** Only these meters; any when left out. */
  meters: z.array(Address).min(1).optional(),
  /** USDC: a lease funded with more is worked for only once its funding is in a block that L1 has (minutes later). */
  safe_above: Usdc.prefault("50"),
  /**
   * USDC, over all leases: while what was delivered and is not covered by a usage that the meter has countersigned comes to
   * more, no job is begun. The marketplace asks for signatures at 0.10 USDC or after 2 s, so an honest one seldom makes
   * you wait.
   */
  max_unsecured: Usdc.prefault("5"),
  max_lease_hours: z.int().min(1).max(2_160).default(168),
  /** Leases are asked for at least so long, in minutes. */
  min_lease_minutes: z.int().min(0).max(1_440).default(0),
  /** Ctrl-C lets running jobs go on for so long. */
  drain_s: z.int().min(0).max(86_400).default(120),
  /** What is offered; all of the machine when left out. */
  cpu: z.int().min(0).max(1_024).optional(),
  memory_gb: z.int().min(0).max(65_536).optional(),
  /** Where the driver does not say. */
  vram_mb: z.int().min(0).max(4_194_304).optional(),
  /**
   * For tests and demonstrations alone: offers these instead of the machine's own, the software device as many times as
   * it says. An agent with a real GPU refuses it.
   */
  simulated: z
    .strictObject({
      gpus: z.int().min(1).max(64),
      cpu: z.int().min(0).max(1_024),
      memory_gb: z.int().min(0).max(65_536),
    })
    .optional(),
  /** The most that one job may use. */
  limits: Limits.extend({ wallMs: z.int().min(1).max(3_600_000) }).prefault({ ...LIMITS, wallMs: 3_600_000 }),
});
/**
 * The provider's own word on what its machine does and for how much; the file `config.json` of the state folder. An
 * unknown key is an error, so that a misspelt price is never a silent default.
 */
export const AgentConfig = Keys.superRefine(
  ({ min_lease_minutes, max_lease_hours, prices, yieldable_prices, start_price }, context) => {
    if (min_lease_minutes > max_lease_hours * 60)
      context.addIssue({
        code: "custom",
        path: ["min_lease_minutes"],
        message: `${min_lease_minutes} minutes are more than max_lease_hours (${max_lease_hours})`,
      });
    const most = mostStart(yieldable_prices ?? prices);
    if (start_price > most)
      context.addIssue({
        code: "custom",
        path: ["start_price"],
        message: `at most ten minutes of a GPU in the cheaper tier, which are ${formatAmount(most)}`,
      });
    if (yieldable_prices !== undefined && yieldable_prices.gpu_hour > prices.gpu_hour)
      context.addIssue({
        code: "custom",
        path: ["yieldable_prices", "gpu_hour"],
        message: "the yieldable tier is the cheaper one: at most prices.gpu_hour",
      });
  },
);
export type AgentConfig = z.output<typeof AgentConfig>;
/** As in the file. */
export type AgentConfigText = z.input<typeof AgentConfig>;

/** Environment variables that stand over the file; command-line flags stand over both. */
export const CONFIG_ENVIRONMENT = {
  GPUX_AGENT_EDGE: ["edge"],
  GPUX_AGENT_RPC: ["rpc"],
  GPUX_AGENT_CHAIN_ID: ["chain_id"],
  GPUX_AGENT_ESCROW: ["escrow"],
  GPUX_AGENT_PAYOUT: ["payout"],
  GPUX_AGENT_GPU_HOUR: ["prices", "gpu_hour"],
  GPUX_AGENT_CORE_HOUR: ["prices", "core_hour"],
  GPUX_AGENT_GB_HOUR: ["prices", "gb_hour"],
  GPUX_AGENT_START_PRICE: ["start_price"],
  GPUX_AGENT_REGION: ["region"],
  GPUX_AGENT_CONCURRENCY: ["concurrency"],
  GPUX_AGENT_MAX_FEE_BPS: ["max_fee_bps"],
  GPUX_AGENT_DRAIN_S: ["drain_s"],
} as const satisfies Record<string, readonly [string] | readonly [string, string]>;

const NUMBERS: ReadonlySet<string> = new Set(["chain_id", "concurrency", "max_fee_bps", "drain_s"]);

export type ConfigOutcome = { ok: true; config: AgentConfig } | { ok: false; detail: string };

/** `values` is what the file says, before it is checked. */
export function configOf(
  values: unknown,
  environment: Readonly<Record<string, string | undefined>>,
): ConfigOutcome {
  const parsed = AgentConfig.safeParse(withEnvironment(values, environment));
  return parsed.success
    ? { ok: true, config: parsed.data }
    : { ok: false, detail: z.prettifyError(parsed.error) };
}

function withEnvironment(
  values: unknown,
  environment: Readonly<Record<string, string | undefined>>,
): unknown {
  if (!isRecord(values)) return values;
  const merged: Record<string, unknown> = { ...values };
  for (const [variable, [key, inner]] of Object.entries<readonly [string, string?]>(CONFIG_ENVIRONMENT)) {
    const text = environment[variable];
    if (text === undefined || text === "") continue;
    const value = NUMBERS.has(key) ? Number(text) : text;
    const outer = merged[key];
    merged[key] = inner === undefined ? value : { ...(isRecord(outer) ? outer : {}), [inner]: value };
  }
  return merged;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export async function loadConfig(
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ConfigOutcome> {
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null) return { ok: false, detail: `There is no ${path}; run gpux-agent init.` };
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (error) {
    return { ok: false, detail: `${path} is not JSON: ${error instanceof Error ? error.message : error}` };
  }
  const outcome = configOf(values, environment);
  return outcome.ok ? outcome : { ok: false, detail: `${path}:\n${outcome.detail}` };
}

/** Writes atomically with mode 0600; what stands at its default is written too, so that the file shows every key. */
export async function saveConfig(path: string, config: AgentConfig): Promise<void> {
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(z.encode(AgentConfig, config), null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
