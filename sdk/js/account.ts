import type { LocalAccount } from "viem";

/**
 * A key that signs for the client: any viem `LocalAccount`, or a wallet wrapped in the same three members. It is asked
 * for an EIP-191 message (each request, ERC-8128) and for typed data (fundings and allowances).
 */
export type Account = Pick<LocalAccount, "address" | "signMessage" | "signTypedData">;

/** Who signs for what a lease may spend, as its `consumerSigner`: an account, or a key (consumer.ts). */
export type Consumer = Pick<Account, "address" | "signTypedData">;
