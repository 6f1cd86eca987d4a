import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AgentConfig, type AgentConfigText, saveConfig } from "@gpux/agent/config";
import { createKeystore } from "@gpux/agent/keystore";
import { statePaths } from "@gpux/agent/state-dir";
import type { Address } from "@gpux/protocol/ids";

export interface AgentSetup {
  /** State folder of the agent: config, keystore, journals. */
  readonly folder: string;
  readonly edge: string;
  readonly rpc: string;
  readonly chainId: number;
  readonly escrow: Address;
  readonly payout: Address;
  readonly key: `0x${string}`;
  /** USDC per GPU-hour as text. */
  readonly gpuHour: string;
  /** Beside what stands above, as in the agent's config.json. */
  readonly config?: Partial<AgentConfigText>;
  /** In the yieldable tier; not sold there when left out. */
  readonly yieldableGpuHour?: string;
  /** Put before the command, to run the agent elsewhere (a network namespace). */
  readonly within?: readonly string[];
}

export interface AgentProcess {
  readonly pid: number;
  readonly logFile: string;
  readonly ended: Promise<number | null>;
  stop(): Promise<void>;
  /** kill -9, of the agent alone: what it started must notice by itself. */
  kill(): Promise<void>;
}

const PASSWORD = "local demo";
const BIN = fileURLToPath(new URL("../../agent/bin.ts", import.meta.url));
/** Cheap, because this key is public anyway; a provider's own keystore takes the default. */
const SCRYPT_N = 2 ** 12;
const STOP_MS = 15_000;

/** Writes what `gpux-agent init` writes. Existing files stay, so that a restart goes on where the last run ended. */
export async function initAgent(setup: AgentSetup): Promise<void> {
  await mkdir(setup.folder, { recursive: true });
  const paths = statePaths(setup.folder);
  const config = AgentConfig.parse({
    edge: setup.edge,
    rpc: setup.rpc,
    chain_id: setup.chainId,
    escrow: setup.escrow,
    payout: setup.payout,
    prices: { gpu_hour: setup.gpuHour },
    ...(setup.yieldableGpuHour === undefined
      ? {}
      : { yieldable_prices: { gpu_hour: setup.yieldableGpuHour } }),
    region: "local",
    drain_s: 5,
    ...setup.config,
  });
  await saveConfig(paths.config, config);
  if (!existsSync(paths.keystore)) await createKeystore(paths.keystore, setup.key, PASSWORD, SCRYPT_N);
}

/** The agent as a provider runs it: its own process, by its command line, its output in a file. */
export async function startAgentProcess(setup: AgentSetup): Promise<AgentProcess> {
  await initAgent(setup);
  const logFile = join(setup.folder, "agent.log");
  const log = await open(logFile, "a");
  const [command = process.execPath, ...args] = [
    ...(setup.within ?? []),
    ...tiedToUs(),
    process.execPath,
    BIN,
    "run",
    "--dir",
    setup.folder,
  ];
  const child = spawn(command, args, {
    stdio: ["ignore", log.fd, log.fd],
    env: { ...process.env, GPUX_AGENT_PASSWORD: PASSWORD, NO_COLOR: "1" },
  });
  const ended = exitOf(child);
  await log.close();
  const signal = async (name: NodeJS.Signals) => {
    child.kill(name);
    await ended;
  };
  return {
    pid: child.pid ?? -1,
    logFile,
    ended,
    kill: () => signal("SIGKILL"),
    async stop() {
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await signal("SIGTERM");
      clearTimeout(timer);
    },
  };
}

/** As for workerd (edge.ts): on Linux the child goes when we are killed. */
export function tiedToUs(): string[] {
  const setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].find((path) => existsSync(path));
  return process.platform === "linux" && setpriv !== undefined ? [setpriv, "--pdeathsig", "KILL", "--"] : [];
}

function exitOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => {
    child.once("error", () => resolve(null));
    child.once("exit", (code) => resolve(code));
  });
}
