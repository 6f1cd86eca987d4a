import { fileURLToPath } from "node:url";
import { defineConfig } from "hardhat/config";

/** `INVARIANTS=thorough` is for a night run; the default keeps `npm test` short. */
const thorough = process.env.INVARIANTS === "thorough";

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
      fuzz: { runs: thorough ? 4_096 : 128 },
      invariant: thorough ? { runs: 256, depth: 256 } : { runs: 24, depth: 40 },
    },
  },
  networks: { default: { type: "edr-simulated", chainType: "op" } },
});
