import { fileURLToPath } from "node:url";
import { defineConfig } from "hardhat/config";
import { COMPILER_SETTINGS, SOLC_VERSION } from "./compiler.ts";
import { effortOf } from "./effort.ts";

const effort = effortOf(process.env);

export default defineConfig({
  solidity: {
    version: SOLC_VERSION,
    // A path that ends in .js is run as solc-js, so that nothing is downloaded.
    path: fileURLToPath(import.meta.resolve("solc/soljson.js")),
    settings: COMPILER_SETTINGS,
  },
  paths: { sources: "./src", tests: { solidity: "./test" } },
  test: {
    solidity: {
      fuzz: { runs: effort.fuzz, ...(effort.seed === undefined ? {} : { seed: effort.seed }) },
      // An act of the handler that reverts is a finding, not noise.
      invariant: { runs: effort.runs, depth: effort.depth, failOnRevert: true },
    },
  },
  networks: { default: { type: "edr-simulated", chainType: "op" } },
});
