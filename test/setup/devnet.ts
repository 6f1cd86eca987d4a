import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createWalletClient, http, parseEther } from "viem";
import { privateKeyToAddress } from "viem/accounts";
import type { TestProject } from "vitest/node";
import { z } from "zod";
import { RELAYER_KEY } from "./provided-context.ts";

const Hex = z.templateLiteral(["0x", z.string()]);
const Facts = z.looseObject({ url: z.url(), chainId: z.int(), usdc: Hex, escrow: Hex, deployer: Hex });

/**
 * Starts the chain that a project's tests share; workerd can start no process. A process of its own, because Vite
 * resolves what is imported here for workerd, and Hardhat is not made for that.
 */
export default async function setup(project: TestProject) {
  const program = fileURLToPath(new URL("../../contracts/devnet.ts", import.meta.url));
  const chain = spawn(process.execPath, [program, "--port", "0", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(chain, "exit");
  const lines = createInterface(chain.stdout);
  const line = await Promise.race([
    once(lines, "line"),
    exited.then(() => Promise.reject(new Error("the devnet ended"))),
  ]);
  const { url, chainId, usdc, escrow, deployer } = Facts.parse(JSON.parse(String(line[0])));
  // The node holds the deployer's key.
  const wallet = createWalletClient({ account: deployer, transport: http(url) });
  await wallet.sendTransaction({
    chain: null,
    to: privateKeyToAddress(RELAYER_KEY),
    value: parseEther("10"),
  });
  project.provide("devnet", { url, chainId, usdc, escrow, deployer });
  return async () => {
    chain.kill("SIGTERM");
    await exited;
  };
}
