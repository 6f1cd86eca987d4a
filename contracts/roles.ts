import { Address } from "@gpux/protocol/ids";
import { type HDAccount, mnemonicToAccount } from "viem/accounts";

/** The mnemonic that every local Ethereum chain knows. Its keys are public: never send anything of value to them. */
export const DEVNET_MNEMONIC = "test test test test test test test test test test test junk";

/** Only the first two hold ETH on the devnet: the others must never need any. */
const ROLES = [
  "deployer",
  "relayer",
  "meter",
  "feeRecipient",
  "provider",
  "agent",
  "consumer",
  "consumerSigner",
] as const;
export type DevnetRole = (typeof ROLES)[number];

/** How many accounts, from the first, the devnet endows with ETH: deployer and relayer. */
export const ENDOWED_ACCOUNTS = 2;

export interface DevnetAccount {
  /** Lower case, as everywhere in the protocol. */
  readonly address: Address;
  readonly privateKey: `0x${string}`;
  /** For viem's signing functions and wallet clients. */
  readonly account: HDAccount;
}

/** `provider` is the payout address, `agent` the key on the GPU machine (the terms' `providerSigner`). */
export function devnetAccount(role: DevnetRole): DevnetAccount {
  const account = mnemonicToAccount(DEVNET_MNEMONIC, { addressIndex: ROLES.indexOf(role) });
  const key = account.getHdKey().privateKey;
  if (key === null) throw new Error(`the test mnemonic has no private key for ${role}`);
  return {
    address: Address.parse(account.address),
    privateKey: `0x${Buffer.from(key).toString("hex")}`,
    account,
  };
}
