/**
 * Runs the Solidity tests with EDR's counters on and fails unless every line and every statement of the escrow ran.
 * EDR counts no branches: that both sides of every condition matter is what the planted faults show (mutate.ts).
 */
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const hardhat = `${dirname(createRequire(import.meta.url).resolve("hardhat/package.json"))}/dist/src/cli.js`;

const report = execFileSync(
  process.execPath,
  [hardhat, "--coverage", "test", "solidity", "--chain-type", "op"],
  {
    cwd: fileURLToPath(new URL(".", import.meta.url)),
    env: { ...process.env, HARDHAT_DISABLE_TELEMETRY: "1" },
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  },
);
// The machine-readable report has lines alone; the table for people has statements too.
const row = /src\/LeaseEscrow\.sol\s*│\s*([\d.]+)\s*│\s*([\d.]+)\s*│\s*(.*?)\s*║/.exec(report);
if (row === null) throw new Error("the coverage report names no src/LeaseEscrow.sol");
const [, lines, statements, uncovered] = row;
console.log(
  `LeaseEscrow: ${lines} % of lines, ${statements} % of statements; lines that did not run: ${uncovered}`,
);
if (lines !== "100.00" || statements !== "100.00") process.exitCode = 1;
