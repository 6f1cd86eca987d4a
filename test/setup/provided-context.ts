/** What global set-ups hand to the tests (`inject(...)` of vitest), also to those inside workerd. */
declare module "vitest" {
  interface ProvidedContext {
    /** A local Optimism chain of this run's own; the relayer's key holds ETH. */
    devnet: {
      readonly url: string;
      readonly chainId: number;
      readonly usdc: `0x${string}`;
      readonly escrow: `0x${string}`;
      /** Unlocked at the node, mints test USDC. */
      readonly deployer: `0x${string}`;
    };
  }
}

/** Of the relayer under test. Nothing of value ever hangs on it. */
export const RELAYER_KEY = `0x${"22".repeat(32)}` as const;
