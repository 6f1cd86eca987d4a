import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import type { Address } from "@gpux/protocol/ids";
import { privateKeyToAddress } from "viem/accounts";
import { z } from "zod";
import { bundleWorker } from "../worker-bundle.ts";

/** What a local edge needs to know; the rest stands in the three wrangler.toml. */
export interface EdgeOptions {
  /** What it listens on and is signed for; 127.0.0.1 by default. */
  readonly host?: string;
  readonly port: number;
  /** Folder of the Durable Objects' and R2's files; kept from run to run. */
  readonly storage: string;
  readonly chainId: number;
  readonly rpcUrl: string;
  readonly escrow: Address;
  readonly token: Address;
  readonly tokenName: string;
  readonly tokenVersion: string;
  readonly feeRecipient: Address;
  readonly feeBps: number;
  readonly meterKey: `0x${string}`;
  readonly relayerKey: `0x${string}`;
  /** Seconds from when a node is there without work to its first capacity challenge. */
  readonly challengeAfterS?: number;
}

export interface Edge {
  readonly url: string;
  /** The runtime's process, for tests that kill it. */
  readonly workerdPid: number;
  stop(): Promise<void>;
}

export class PortTaken extends Error {
  constructor(host: string, port: number) {
    super(`port ${port} on ${host} is taken`);
  }
}

async function claim(host: string, port: number): Promise<void> {
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.once("error", () => reject(new PortTaken(host, port)));
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}

/**
 * Without this a killed parent leaves workerd alive, holding port and storage. Linux alone can tie a child's life to
 * its parent's (prctl PR_SET_PDEATHSIG); elsewhere only an orderly stop cleans up.
 */
async function tieWorkerdToUs(folder: string): Promise<void> {
  const setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].find((path) => existsSync(path));
  if (process.platform !== "linux" || setpriv === undefined) return;
  const workerd = z.object({ default: z.string() }).parse(createRequire(import.meta.url)("workerd")).default;
  const wrapper = join(folder, "workerd");
  await writeFile(wrapper, `#!/bin/sh\nexec ${setpriv} --pdeathsig KILL -- "${workerd}" "$@"\n`);
  await chmod(wrapper, 0o755);
  process.env.MINIFLARE_WORKERD_PATH = wrapper;
}

/** Our workerd children, on Linux; elsewhere none are found. */
function workerdChildren(): number[] {
  const pids = existsSync("/proc") ? readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)) : [];
  return pids.flatMap((pid) => {
    try {
      const [, name, parent] =
        /^[0-9]+ \((.*)\) \S ([0-9]+)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
      return name === "workerd" && Number(parent) === process.pid ? [Number(pid)] : [];
    } catch {
      return []; // it went while we looked
    }
  });
}

/** The Workers of an edge, the public one first. */
export const EDGE_WORKERS = ["edge", "relayer", "meter"] as const;
export type EdgeWorker = (typeof EDGE_WORKERS)[number];

/** Where each says what it needs, from the root of the repository. */
export const WORKER_CONFIGS: Readonly<Record<EdgeWorker, string>> = {
  edge: "wrangler.toml",
  relayer: "workers/relayer/wrangler.toml",
  meter: "workers/meter/wrangler.toml",
};

export function edgeUrl({ host = "127.0.0.1", port }: EdgeOptions): string {
  return `http://${host}:${port}`;
}

/** What stands in place of the vars and secrets of each wrangler.toml. */
export function edgeBindings(options: EdgeOptions): Record<EdgeWorker, Record<string, string>> {
  const place = { CHAIN_ID: String(options.chainId), ESCROW: options.escrow };
  return {
    edge: {
      ...place,
      TOKEN: options.token,
      TOKEN_NAME: options.tokenName,
      TOKEN_VERSION: options.tokenVersion,
      METER_ADDRESS: privateKeyToAddress(options.meterKey),
      FEE_RECIPIENT: options.feeRecipient,
      FEE_BPS: String(options.feeBps),
      RPC_URL: options.rpcUrl,
      PUBLIC_ORIGIN: edgeUrl(options),
      SESSION_KEYS: sessionKeys(options.meterKey),
      ...(options.challengeAfterS === undefined
        ? {}
        : { CHALLENGE_AFTER_S: String(options.challengeAfterS) }),
    },
    relayer: { ...place, RPC_URLS: options.rpcUrl, RELAYER_KEYS: options.relayerKey },
    meter: { ...place, METER_KEY: options.meterKey },
  };
}

/** Of a local edge: as secret as its meter's key, and the same after a restart, so that sessions live on. */
function sessionKeys(meterKey: string): string {
  return `local:${createHash("sha256").update(`gpux session keys ${meterKey}`).digest("hex")}`;
}

/** Starts edge, relayer and meter in one real workerd. @throws PortTaken */
export async function startEdge(options: EdgeOptions): Promise<Edge> {
  const { host = "127.0.0.1" } = options;
  await claim(host, options.port);
  await mkdir(options.storage, { recursive: true });
  await tieWorkerdToUs(options.storage);
  process.env.WRANGLER_LOG ??= "error";
  const { convertV4MiniflareOptions, Log, LogLevel, Miniflare } = await import("miniflare");
  const { unstable_getMiniflareWorkerOptions } = await import("wrangler");

  const url = edgeUrl(options);
  const bindings = edgeBindings(options);
  const workers = await Promise.all(
    EDGE_WORKERS.map(async (name) => {
      const { main, workerOptions } = unstable_getMiniflareWorkerOptions(WORKER_CONFIGS[name]);
      if (main === undefined) throw new Error(`${WORKER_CONFIGS[name]} names no main`);
      return {
        ...workerOptions,
        name: `gpux-${name}`,
        bindings: bindings[name],
        modulesRoot: dirname(resolve(main)),
        modules: await bundleWorker(main),
      };
    }),
  );
  const before = new Set(workerdChildren());
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      host,
      port: options.port,
      cf: false,
      telemetry: { enabled: false },
      log: new Log(LogLevel.ERROR),
      logRequests: false,
      unsafeLocalExplorer: false,
      unsafeObservability: false,
      resourcePersistencePath: options.storage,
      workers,
    }),
  );
  await miniflare.ready;
  const workerdPid = workerdChildren().find((pid) => !before.has(pid)) ?? -1;
  return { url, workerdPid, stop: () => miniflare.dispose() };
}
