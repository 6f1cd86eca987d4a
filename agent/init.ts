import { access } from "node:fs/promises";
import { addresses } from "@gpux/protocol/addresses";
import { WellKnown } from "@gpux/protocol/answers";
import { generatePrivateKey } from "viem/accounts";
import { type AgentConfigText, configOf, saveConfig } from "./config.ts";
import { createKeystore, keystoreAddress } from "./keystore.ts";
import { ask, askPassword } from "./password.ts";
import type { StatePaths } from "./state-dir.ts";

/** Option name as commander gives it, flag, help, question for the prompt, default. */
export const INIT_OPTIONS = [
  ["edge", "--edge <url>", "the marketplace's URL", "Marketplace URL", undefined],
  ["rpc", "--rpc <url>", "your JSON-RPC node of the settlement chain", "JSON-RPC URL", undefined],
  ["payout", "--payout <address>", "where earnings go; keep its key elsewhere", "Payout address", undefined],
  ["gpuHour", "--gpu-hour <usdc>", "price of the GPU per hour, such as 0.60", "USDC per GPU hour", "0.60"],
  ["coreHour", "--core-hour <usdc>", "price of a CPU core per hour", undefined, "0"],
  ["gbHour", "--gb-hour <usdc>", "price of a GB of memory per hour", undefined, "0"],
  ["region", "--region <name>", "such as eu-west", "Region", "local"],
  ["concurrency", "--concurrency <jobs>", "jobs that run at once", undefined, undefined],
  ["maxFeeBps", "--max-fee-bps <bps>", "highest marketplace fee, 100 is 1 %", undefined, undefined],
  [
    "chainId",
    "--chain-id <id>",
    "settlement chain; asked of the marketplace when left out",
    undefined,
    undefined,
  ],
  [
    "escrow",
    "--escrow <address>",
    "LeaseEscrow; asked of the marketplace when left out",
    undefined,
    undefined,
  ],
] as const;

export type InitOutcome =
  | { ok: true; address: string; payout: string; config: string }
  | { ok: false; detail: string };

/**
 * Makes the key (unless the folder has one) and writes the config. Refuses to overwrite a config. The chain and the
 * escrow are pinned here: what the edge says later does not change them.
 */
export async function initialise(from: {
  readonly paths: StatePaths;
  readonly options: Readonly<Record<string, unknown>>;
  readonly passwordFile: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
}): Promise<InitOutcome> {
  const { paths, environment } = from;
  if (await exists(paths.config))
    return { ok: false, detail: `${paths.config} exists; edit it, or use another --dir.` };

  const answers: Record<string, string> = {};
  for (const [name, flag, , question, fallback] of INIT_OPTIONS) {
    const given = from.options[name];
    const variable =
      environment[`GPUX_AGENT_${flag.slice(2).split(" ")[0]?.toUpperCase().replaceAll("-", "_")}`];
    const value =
      typeof given === "string"
        ? given
        : (variable ?? (question === undefined ? fallback : ((await ask(question, fallback)) ?? fallback)));
    if (value !== undefined) answers[name] = value;
  }
  const missing = (["edge", "rpc", "payout"] as const).filter((name) => answers[name] === undefined);
  if (missing.length > 0)
    return { ok: false, detail: `Give ${missing.map((name) => `--${name}`).join(", ")}.` };

  let { chainId, escrow } = answers;
  if (chainId === undefined || escrow === undefined) {
    const place = await askEdge(answers.edge ?? "");
    if (!place.ok) return place;
    const known = addresses[place.chainId]?.escrow;
    if (escrow === undefined && known !== undefined && known !== place.escrow)
      return {
        ok: false,
        detail: `${answers.edge} names the escrow ${place.escrow}, and the one known on chain ${place.chainId} is ${known}. If you trust it, say so with --escrow.`,
      };
    chainId ??= String(place.chainId);
    escrow ??= place.escrow;
  }
  const { edge, rpc, payout, region, concurrency, maxFeeBps, gpuHour, coreHour, gbHour } = answers;
  const values: Partial<Record<keyof AgentConfigText, unknown>> = {
    edge,
    rpc,
    chain_id: Number(chainId),
    escrow,
    payout,
    prices: { gpu_hour: gpuHour, core_hour: coreHour, gb_hour: gbHour },
    region,
    ...(concurrency === undefined ? {} : { concurrency: Number(concurrency) }),
    ...(maxFeeBps === undefined ? {} : { max_fee_bps: Number(maxFeeBps) }),
  };
  const checked = configOf(values, {});
  if (!checked.ok) return { ok: false, detail: checked.detail };

  let address = await keystoreAddress(paths.keystore);
  if (address === null) {
    const password = await askPassword({ file: from.passwordFile, environment, confirm: true });
    if (!password.ok) return password;
    address = (
      await createKeystore(paths.keystore, generatePrivateKey(), password.password)
    ).address.toLowerCase();
  }
  await saveConfig(paths.config, checked.config);
  return { ok: true, address, payout: checked.config.payout, config: paths.config };
}

async function askEdge(
  edge: string,
): Promise<{ ok: true; chainId: number; escrow: string } | { ok: false; detail: string }> {
  const refused = (why: string) => ({
    ok: false as const,
    detail: `${edge} does not say its chain (${why}); give --chain-id and --escrow.`,
  });
  try {
    const response = await fetch(new URL("/.well-known/gpux", edge), { signal: AbortSignal.timeout(15_000) });
    if (!response.ok) return refused(`HTTP ${response.status}`);
    const parsed = WellKnown.safeParse(await response.json());
    if (!parsed.success) return refused("its answer has no settlement");
    return { ok: true, chainId: parsed.data.settlement.chain_id, escrow: parsed.data.settlement.escrow };
  } catch (error) {
    return refused(error instanceof Error ? error.message : String(error));
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
