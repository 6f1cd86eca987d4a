import { fileURLToPath } from "node:url";
import { createHardhatRuntimeEnvironment } from "hardhat/hre";
import { leaseEscrowCompiler } from "./bytecode.ts";
import { constructorArgs, encodedConstructorArgs, escrowAddress } from "./escrow-code.ts";
import hardhatConfig from "./hardhat.config.ts";
import type { Network } from "./networks.ts";

const here = fileURLToPath(new URL(".", import.meta.url));
const SOURCE = fileURLToPath(new URL("src/LeaseEscrow.sol", import.meta.url));

/** As inside the standard JSON input. */
export const CONTRACT_NAME = "project/src/LeaseEscrow.sol:LeaseEscrow";

/** What solc was given for the escrow alone, with all sources inside; explorers compile it again. */
export async function standardJson(): Promise<string> {
  process.env.HARDHAT_DISABLE_TELEMETRY = "1";
  const hre = await createHardhatRuntimeEnvironment(hardhatConfig, {}, here);
  const jobs = await hre.solidity.getCompilationJobs([SOURCE], { quiet: true, force: true });
  const [job] = jobs.success ? jobs.compilationJobsPerFile.values() : [];
  if (job === undefined) throw new Error("Hardhat finds no compilation job for LeaseEscrow.sol");
  return `${JSON.stringify(await job.getSolcInput(), null, 2)}\n`;
}

/** What a person enters on an explorer to verify the source, and what to compare by eye. */
export function verificationOf(
  network: Network,
  /** Where the standard JSON input was written. */
  standardJson: string,
): string {
  const [token, ...delays] = constructorArgs(network.token);
  const escrow = escrowAddress(network.token);
  return [
    `contract              ${escrow} on ${network.name} (chain ${network.chainId})`,
    ...(network.explorer === undefined
      ? []
      : [`page                  ${network.explorer}/verifyContract?a=${escrow}`]),
    `how                   Solidity, standard JSON input: ${standardJson}`,
    `contract name         ${CONTRACT_NAME}`,
    `compiler              v${leaseEscrowCompiler}; in the file: optimizer on, 10000 runs, EVM prague, no via-IR`,
    "license               Apache-2.0",
    `constructor arguments ${encodedConstructorArgs(network.token).slice(2)}`,
    `check by eye          token ${token}, delays in seconds: ${delays.join(", ")} (exit, co-signed exit, release, longest term)`,
    "                      no owner, no proxy: the page must show neither",
  ].join("\n");
}
