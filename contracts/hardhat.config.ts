import { fileURLToPath } from "node:url";
import { defineConfig } from "hardhat/config";
import { z } from "zod";

/**
 * How long to play. The default keeps `npm test` short; `long` is millions of calls, for a night; `mutation` is for
 * one of many runs, each with a fault planted.
 */
const effort = {
  short: { fuzz: 128, runs: 48, depth: 64 },
  long: { fuzz: 65_536, runs: 8_192, depth: 256 },
  mutation: { fuzz: 32, runs: 24, depth: 60 },
}[z.enum(["short", "long", "mutation"]).default("short").parse(process.env.EFFORT)];

export default defineConfig({
  solidity: {
    version: "0.8.37",
    // A path that ends in .js is run as solc-js, so that nothing is downloaded.
    path: fileURLToPath(import.meta.resolve("solc/soljson.js")),
    settings: { optimizer: { enabled: true, runs: 10_000 }, evmVersion: "prague" },
  },
  paths: { sources: "./src", tests: { solidity: "./test" } },
  test: {
    solidity: {
      fuzz: { runs: effort.fuzz },
      // An act of the handler that reverts is a finding, not noise.
      invariant: { runs: effort.runs, depth: effort.depth, failOnRevert: true },
    },
  },
  networks: { default: { type: "edr-simulated", chainType: "op" } },
});
