import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type AttachedDevnet, attachDevnet, DevnetFacts } from "@gpux/contracts/devnet-client";

/** A local Optimism chain in a process of its own, and how to end it. */
export interface ChainProcess {
  readonly chain: AttachedDevnet;
  close(): Promise<void>;
}

/**
 * `blockMs`: a block every so often, with a mempool, as on Optimism; 0: one for each transaction, at once, and a nonce
 * above the next is refused.
 * @throws when the chain ends before it is ready.
 */
export async function startChain(blockMs: number): Promise<ChainProcess> {
  const program = fileURLToPath(import.meta.resolve("@gpux/contracts/devnet"));
  const interval = blockMs === 0 ? [] : ["--interval", String(blockMs)];
  const child = spawn(process.execPath, [program, "--port", "0", "--json", ...interval], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const [line] = await Promise.race([
    once(createInterface(child.stdout), "line"),
    exited.then(() => Promise.reject(new Error("the chain ended before it was ready"))),
  ]);
  return {
    chain: attachDevnet(DevnetFacts.parse(JSON.parse(String(line)))),
    close: async () => {
      child.kill("SIGTERM");
      await exited;
    },
  };
}
