import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { bundleWorker } from "../../scripts/worker-bundle.ts";
import type { Bench, BenchSettings } from "../bench.ts";
import { type Child, cameUp, startProgram } from "../child.ts";
import { freePort } from "../free-port.ts";
import { processorUs } from "../processor-time.ts";
import type { Goal, Report } from "../report.ts";
import { type Figures, pairedRatio, type Round, rotated, rowsOf } from "../rounds.ts";

/** What requests and receipts are checked and signed with, each alone in a bare workerd. */
export const signatures: Bench = { run: measureSignatures };

const WORKER = fileURLToPath(new URL("./checks.worker.ts", import.meta.url));
const UP_MS = 30_000;
/** Of one request to the Worker, so that its own cost is lost in it. */
const BATCH_MS = 40;
const METRIC = "us_per_op";

async function measureSignatures({ rounds, seconds, say }: BenchSettings): Promise<Report> {
  const folder = await mkdtemp(join(tmpdir(), "gpux-bench-signatures-"));
  const port = await freePort();
  const workerd = await startWorker(folder, port);
  try {
    const names = z.array(z.string()).parse(await (await ask(port, "")).json());
    const batches = new Map<string, number>();
    for (const name of names) batches.set(name, await batchOf(port, name));
    const all: Round[] = [];
    for (let n = 0; n < rounds; n += 1) {
      say(`round ${n + 1} of ${rounds}`);
      const round = new Map<string, Figures>();
      for (const name of rotated(names, n))
        round.set(name, await section(workerd, port, name, batches.get(name) ?? 1, seconds));
      all.push(round);
    }
    return reportOf(all, rounds, seconds);
  } finally {
    await workerd.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function startWorker(folder: string, port: number): Promise<Child> {
  const modules: string[] = [];
  for (const { type, path, contents } of await bundleWorker(WORKER)) {
    const name = basename(path);
    await writeFile(join(folder, name), contents);
    modules.push(`(name = "${name}", ${type === "ESModule" ? "esModule" : "wasm"} = embed "${name}")`);
  }
  const config = join(folder, "signatures.capnp");
  await writeFile(
    config,
    [
      `using Workerd = import "/workerd/workerd.capnp";`,
      "const config :Workerd.Config = (",
      `  services = [(name = "checks", worker = (compatibilityDate = "2026-11-01", modules = [${modules.join(", ")}]))],`,
      `  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "checks")],`,
      ");",
    ].join("\n"),
  );
  const program = z.object({ default: z.string() }).parse(createRequire(import.meta.url)("workerd")).default;
  const workerd = startProgram("workerd", folder, [program, "serve", config]);
  await cameUp(
    workerd,
    () =>
      ask(port, "").then(
        () => true,
        () => false,
      ),
    UP_MS,
  );
  return workerd;
}

async function ask(port: number, path: string): Promise<Response> {
  // workerd closes idle keep-alive connections, and a pooled one would fail later.
  const answer = await fetch(`http://127.0.0.1:${port}/${path}`, { headers: { connection: "close" } });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

/** As many as take about {@link BATCH_MS}; what a check sets up, and the compiler's warming up, happen here. */
async function batchOf(port: number, name: string): Promise<number> {
  for (let n = 8; ; n *= 2) {
    const from = performance.now();
    await ask(port, `${name}?n=${n}`);
    if (performance.now() - from > BATCH_MS) return n;
  }
}

/** Processor time where Linux tells it, else wall time. */
async function section(
  workerd: Child,
  port: number,
  name: string,
  n: number,
  seconds: number,
): Promise<Figures> {
  const until = performance.now() + seconds * 1_000;
  const from = performance.now();
  const spent = processorUs(workerd.pid);
  let done = 0;
  do {
    await ask(port, `${name}?n=${n}`);
    done += n;
  } while (performance.now() < until);
  const after = processorUs(workerd.pid);
  const us = spent === null || after === null ? (performance.now() - from) * 1_000 : after - spent;
  return { [METRIC]: us / done };
}

function reportOf(all: readonly Round[], rounds: number, seconds: number): Report {
  const goal = (text: string, target: number, variant: string, base: string): Goal => {
    const measured = pairedRatio(all, METRIC, variant, base);
    return { goal: text, target, measured, met: measured === null ? null : measured <= target };
  };
  return {
    bench: "signatures",
    rounds,
    seconds,
    rows: rowsOf(all, ["noble-recover", "noble-sign"]),
    goals: [
      goal(
        "a recovery in WebAssembly over one in JavaScript, at most",
        0.25,
        "wasm-recover",
        "noble-recover",
      ),
      goal("a signature in WebAssembly over one in JavaScript, at most", 0.33, "wasm-sign", "noble-sign"),
      goal("a session's request over a wallet's, at most", 0.5, "session-request", "wallet-request"),
    ],
    notes: [
      "viem-verify: verifyTypedData of an Allowance, EIP-712 encoding included. noble-recover: recoverAddress of its digest, by viem. wasm-recover: recoverSigner of protocol/, which the product uses; both with the keccak of the address.",
      "ed25519-verify, p256-verify, hmac-verify: WebCrypto over 300 bytes, the key imported each time, as a request's is.",
      "wallet-request and session-request: the whole check of a signed POST of 80 bytes, ERC-8128 and a session with an Ed25519 key: parsing, digest of the body, signature base, sealed grant.",
      "One isolate of a bare workerd, one request at a time; processor time of the whole process from Linux's scheduler, garbage collection included.",
    ],
  };
}
