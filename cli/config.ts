import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseAmount } from "@gpux/protocol/money";
import { GpuModel, Region } from "@gpux/protocol/resources";
import { z } from "zod";
import { UsageError } from "./outcome.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const Usdc = z.string().refine((text) => parseAmount(text) !== null, "USDC as a decimal, such as 0.05");
const HttpUrl = z.url({ protocol: /^https?$/, error: "an http or https URL" });

const Profile = z.strictObject({
  url: HttpUrl.optional(),
  max_price: Usdc.optional(),
  deposit: Usdc.optional(),
  max_rate: Usdc.optional(),
  allow_ahead: Usdc.optional(),
  gpu: GpuModel.optional(),
  region: Region.optional(),
  wallet: z.string().min(1).optional(),
  rpc: HttpUrl.optional(),
});
type Profile = z.output<typeof Profile>;

/** `config.json` in the config folder. An unknown key is an error, so that a misspelt limit is never a silent default. */
const ConfigFile = z.strictObject({
  profile: z.string().default("default"),
  profiles: z.record(z.string(), Profile).default({}),
});

/** Each setting with its environment variable; flags stand over both, the profile file under both. */
export const ENVIRONMENT = {
  url: "GPUX_URL",
  max_price: "GPUX_MAX_PRICE",
  deposit: "GPUX_DEPOSIT",
  max_rate: "GPUX_MAX_RATE",
  allow_ahead: "GPUX_ALLOW_AHEAD",
  gpu: "GPUX_GPU",
  region: "GPUX_REGION",
  wallet: "GPUX_WALLET",
  rpc: "GPUX_RPC",
} as const satisfies Record<keyof Profile, string>;

export const DEFAULT_URL = "http://localhost:8787";
/** The most that a job may cost, and the most that a new lease is funded with, in USDC. */
export const DEFAULT_MAX_PRICE = "0.05";
export const DEFAULT_DEPOSIT = "1.00";

export interface Settings extends Profile {
  readonly url: string;
  readonly wallet: string;
  readonly max_price: string;
  readonly deposit: string;
}

/** `GPUX_CONFIG_DIR`, else `gpux` in the user's config folder (XDG base directories). */
export function configFolder(environment: Environment): string {
  const { GPUX_CONFIG_DIR, XDG_CONFIG_HOME } = environment;
  return GPUX_CONFIG_DIR || join(XDG_CONFIG_HOME || join(homedir(), ".config"), "gpux");
}

/** Flags > environment > profile > defaults. Throws {@link UsageError} naming the place of a bad value. */
export async function loadSettings(
  flags: Partial<Record<keyof Profile | "profile", string>>,
  environment: Environment,
): Promise<Settings> {
  const folder = configFolder(environment);
  const file = await readConfig(join(folder, "config.json"));
  const name = flags.profile ?? environment.GPUX_PROFILE ?? file.profile;
  const profile = Object.hasOwn(file.profiles, name) ? file.profiles[name] : undefined;
  if (profile === undefined && (flags.profile ?? environment.GPUX_PROFILE) !== undefined) {
    throw new UsageError(`There is no profile "${name}" in ${join(folder, "config.json")}`);
  }
  const merged: Record<string, string | undefined> = { ...profile };
  for (const [key, variable] of Object.entries(ENVIRONMENT)) {
    const value = environment[variable];
    if (value !== undefined && value !== "") merged[key] = value;
  }
  const given = Object.entries(flags).filter(([key, value]) => key !== "profile" && value !== undefined);
  const parsed = Profile.safeParse({ ...merged, ...Object.fromEntries(given) });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new UsageError(`The setting ${issue?.path.join(".")} is not valid: ${issue?.message}`);
  }
  return {
    ...parsed.data,
    url: parsed.data.url ?? DEFAULT_URL,
    max_price: parsed.data.max_price ?? DEFAULT_MAX_PRICE,
    deposit: parsed.data.deposit ?? DEFAULT_DEPOSIT,
    wallet: parsed.data.wallet ?? join(folder, "wallet.json"),
  };
}

async function readConfig(path: string): Promise<z.output<typeof ConfigFile>> {
  const text = await readFile(path, "utf8").catch(() => "{}");
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw new UsageError(`${path} is not JSON`);
  }
  const parsed = ConfigFile.safeParse(document);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new UsageError(`${path} at /${issue?.path.join("/")}: ${issue?.message}`);
}
