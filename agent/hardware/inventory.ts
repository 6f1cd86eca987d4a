import { execFile } from "node:child_process";
import { availableParallelism, totalmem } from "node:os";
import { promisify } from "node:util";
import { type Gpu, gpuModelOf, type Offer } from "@gpux/protocol/resources";
import type { AgentConfig } from "../config.ts";
import type { ExecutorDescription } from "../executors/executor.ts";

const run = promisify(execFile);

/** A line of `nvidia-smi`: WebGPU tells neither the memory of a card nor its driver's version. */
export interface NvidiaCard {
  readonly name: string;
  readonly vramMb: number;
  readonly driver: string;
}

/** `NVIDIA GeForce RTX 4090, 24564, 550.54.14` by line; lines of another form are passed over. */
export function parseNvidiaSmi(text: string): NvidiaCard[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", memory = "", driver = ""] = line.split(",").map((part) => part.trim());
    const vramMb = Number(memory);
    return name !== "" && Number.isInteger(vramMb) && vramMb > 0 ? [{ name, vramMb, driver }] : [];
  });
}

/** The cards that NVIDIA's driver knows; none where there is no such driver. */
async function nvidiaCards(): Promise<NvidiaCard[]> {
  const query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"];
  const answer = await run("nvidia-smi", query, { timeout: 10_000 }).catch(() => null);
  return answer === null ? [] : parseNvidiaSmi(answer.stdout);
}

/** The GPU as the executor's own probe saw it, with what its driver adds. */
export function gpuOf(
  description: ExecutorDescription,
  cards: readonly NvidiaCard[],
  vramMb: number | undefined,
): Gpu {
  const card = cards.find((each) => description.adapter.includes(each.name));
  return {
    // SwiftShader's description ends in its driver's version, which is no part of a model's name.
    model: gpuModelOf(description.adapter.replace(/\s+driver[-\s].*$/i, "")),
    reported: description.adapter.slice(0, 120),
    // A software device has no memory of its own.
    vram_mb: vramMb ?? (description.software ? 0 : (card?.vramMb ?? 0)),
    driver: (card?.driver ?? description.architecture).slice(0, 80),
    backend: description.backend.slice(0, 40),
    software: description.software,
  };
}

/** What the node offers: the machine as it is, or less where the owner said so; or what its config simulates. */
export async function takeInventory(description: ExecutorDescription, config: AgentConfig): Promise<Offer> {
  return {
    ...(config.simulated === undefined
      ? await machineOf(description, config)
      : simulatedMachine(description, config, config.simulated)),
    region: config.region,
    prices: config.prices,
    concurrency: config.concurrency,
    yieldable: config.yieldable_prices ?? null,
    gpus_per_lease: config.gpus_per_lease ?? 64,
    duration_s: { min: config.min_lease_minutes * 60, max: config.max_lease_hours * 3_600 },
    features: [...new Set([...description.features, ...config.features])].slice(0, 64),
    // Jobs run in a child process of the agent, whichever GPU it has.
    isolation: "process",
    models: config.models,
    start_price: config.start_price,
  };
}

type Machine = Pick<Offer, "gpus" | "cpu" | "memory_gb">;

async function machineOf(description: ExecutorDescription, config: AgentConfig): Promise<Machine> {
  const cards = description.software ? [] : await nvidiaCards();
  // In a container the cgroup's limit is the machine; 0 or a huge number means there is none.
  const limit = process.constrainedMemory();
  const bytes = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  return {
    gpus: [gpuOf(description, cards, config.vram_mb)],
    cpu: Math.min(config.cpu ?? 1_024, availableParallelism()),
    memory_gb: Math.min(config.memory_gb ?? 65_536, Math.floor(bytes / 1e9)),
  };
}

/** Cards that are not there say so wherever they are shown. */
function simulatedMachine(
  description: ExecutorDescription,
  { vram_mb }: AgentConfig,
  { gpus, cpu, memory_gb }: NonNullable<AgentConfig["simulated"]>,
): Machine {
  const gpu = gpuOf(description, [], vram_mb);
  const card = { ...gpu, reported: `simulated: ${gpu.reported}`.slice(0, 120) };
  return { gpus: Array.from({ length: gpus }, () => card), cpu, memory_gb };
}
