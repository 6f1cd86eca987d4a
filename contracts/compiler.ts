/** How the escrow is compiled, on every chain and wherever it is measured. */
export const SOLC_VERSION = "0.8.37";
export const COMPILER_SETTINGS = {
  optimizer: { enabled: true, runs: 10_000 },
  evmVersion: "prague",
} as const;
