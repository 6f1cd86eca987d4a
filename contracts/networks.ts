import { Address } from "@gpux/protocol/ids";

/** The escrow's constructor arguments on every chain (DESIGN section 8), in seconds. */
export const ESCROW_DELAYS = {
  exit: 24n * 3600n,
  cosignedExit: 3600n,
  release: 3600n,
  maxTerm: 90n * 24n * 3600n,
} as const;

/** A chain on which the escrow stands, and the token in it. The escrow's address follows from both. */
export interface Network {
  readonly name: string;
  readonly chainId: number;
  readonly token: Address;
  /** Where to verify the source; absent on a local chain. */
  readonly explorer?: string;
  /** Where L1 takes transactions that the sequencer has to include; absent on a local chain. */
  readonly l1?: { readonly chainId: number; readonly portal: Address };
}

/**
 * The tokens are Circle's own USDC (developers.circle.com, "USDC contract addresses"); the portals are each chain's
 * OptimismPortalProxy (ethereum-optimism/superchain-registry).
 */
export const NETWORKS = {
  "op-mainnet": {
    name: "OP Mainnet",
    chainId: 10,
    token: Address.parse("0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85"),
    explorer: "https://optimistic.etherscan.io",
    l1: { chainId: 1, portal: Address.parse("0xbEb5Fc579115071764c7423A4f12eDde41f106Ed") },
  },
  "op-sepolia": {
    name: "OP Sepolia",
    chainId: 11_155_420,
    token: Address.parse("0x5fd84259d66Cd46123540766Be93DFE6D43130D7"),
    explorer: "https://sepolia-optimism.etherscan.io",
    l1: { chainId: 11_155_111, portal: Address.parse("0x16Fc5058F25648194471939df75CF27A2fdC48BC") },
  },
  /** `contracts/devnet.ts`: its deployer's first contract is the USDC double. */
  local: {
    name: "the local chain",
    chainId: 31_337,
    token: Address.parse("0x5FbDB2315678afecb367f032d93F642f64180aa3"),
  },
} as const satisfies Record<string, Network>;

export type NetworkName = keyof typeof NETWORKS;

/** USDC.e, which the Optimism bridge made of USDC on Ethereum: it shares the name and lacks EIP-3009. */
export const BRIDGED_USDC: ReadonlySet<string> = new Set(["0x7f5c764cbc14f9669b88837ca1490cca17c31607"]);
