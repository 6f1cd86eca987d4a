import { readFileSync } from "node:fs";
import { COMPILER_SETTINGS } from "@gpux/contracts/compiler";
import { creationCode } from "@gpux/contracts/solc";
import { Address } from "@gpux/protocol/ids";
import { encodeDeployData, encodeFunctionData, type Hex, parseAbi, parseSignature } from "viem";
import type { HDAccount, PrivateKeyAccount } from "viem/accounts";
import { consumer, USED } from "../../scripts/seed/scenario.ts";
import type { Ledger, Purpose, Sent } from "./ledger.ts";
import type { Way } from "./life.ts";

const NAME = "ERC2771Forwarder";
const HOUR = 3_600;
/** What a request grants its call. */
const CALL_GAS = 200_000n;

const forwarderAbi = parseAbi([
  "struct ForwardRequestData { address from; address to; uint256 value; uint256 gas; uint48 deadline; bytes data; bytes signature; }",
  "constructor(string name)",
  "function execute(ForwardRequestData request) payable",
  "function executeBatch(ForwardRequestData[] requests, address refundReceiver) payable",
]);
const escrowAbi = parseAbi([
  "constructor(address forwarder, address token)",
  "function deposit(address provider, bytes32 lease, uint256 amount)",
  "function refund(address consumer, bytes32 lease, uint256 used)",
]);
const permitAbi = parseAbi([
  "function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)",
]);
/** EIP-712 types of OpenZeppelin's forwarder and of EIP-2612. */
const types = {
  ForwardRequest: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "gas", type: "uint256" },
    { name: "nonce", type: "uint256" },
    { name: "deadline", type: "uint48" },
    { name: "data", type: "bytes" },
  ],
  Permit: [
    { name: "owner", type: "address" },
    { name: "spender", type: "address" },
    { name: "value", type: "uint256" },
    { name: "nonce", type: "uint256" },
    { name: "deadline", type: "uint256" },
  ],
} as const;

/** Where the baseline stands. */
export interface ForwarderPlace {
  readonly forwarder: Address;
  readonly escrow: Address;
}

/** OpenZeppelin's forwarder as its package has it and our minimal escrow, compiled as the LeaseEscrow is. */
export async function deployForwarder(ledger: Ledger): Promise<ForwarderPlace> {
  const content = readFileSync(new URL("ForwarderEscrow.sol", import.meta.url), "utf8");
  const forwarder = await ledger.deploy(
    encodeDeployData({
      abi: forwarderAbi,
      bytecode: creationCode(
        { file: `@openzeppelin/contracts/metatx/${NAME}.sol`, contract: NAME },
        COMPILER_SETTINGS,
      ),
      args: [NAME],
    }),
  );
  const escrow = await ledger.deploy(
    encodeDeployData({
      abi: escrowAbi,
      bytecode: creationCode(
        { file: "ForwarderEscrow.sol", contract: "ForwarderEscrow", content },
        COMPILER_SETTINGS,
      ),
      args: [forwarder, ledger.chain.usdc],
    }),
  );
  return { forwarder, escrow };
}

type Signer = Pick<HDAccount | PrivateKeyAccount, "address" | "signTypedData">;

/** A request for each deposit, top-up and refund: in a transaction of its own, or `batched` by `executeBatch`. */
export function forwarder(ledger: Ledger, place: ForwarderPlace, batched: boolean): Way {
  const { chainId, usdc } = ledger.chain;
  /** By signer: the forwarder takes requests of one signer in order only. Each life begins with none. */
  const nonces = new Map<string, bigint>();

  const request = async (signer: Signer, data: Hex, deadline: number) => {
    const nonce = nonces.get(signer.address) ?? 0n;
    nonces.set(signer.address, nonce + 1n);
    const asked = { from: signer.address, to: place.escrow, value: 0n, gas: CALL_GAS, deadline, data };
    const domain = { name: NAME, version: "1", chainId, verifyingContract: place.forwarder };
    const message = { ...asked, nonce };
    const signature = await signer.signTypedData({ domain, types, primaryType: "ForwardRequest", message });
    return { ...asked, signature };
  };

  const relay = async (
    purpose: Purpose,
    calls: readonly { readonly signer: Signer; readonly data: Hex }[],
  ): Promise<Sent[]> => {
    const deadline = (await ledger.now()) + HOUR;
    const requests = [];
    for (const { signer, data } of calls) requests.push(await request(signer, data, deadline));
    if (batched) {
      const args = [requests, Address.parse(`0x${"00".repeat(20)}`)] as const;
      const data = encodeFunctionData({ abi: forwarderAbi, functionName: "executeBatch", args });
      return [await ledger.send(purpose, place.forwarder, data)];
    }
    const sent: Sent[] = [];
    for (const each of requests) {
      const data = encodeFunctionData({ abi: forwarderAbi, functionName: "execute", args: [each] });
      sent.push(await ledger.send(purpose, place.forwarder, data));
    }
    return sent;
  };

  return {
    name: batched ? "forwarder batched" : "forwarder",
    feeBps: 0,
    // Without it the escrow could take nothing. Each life is the consumer's first.
    prepare: async (total) => {
      nonces.clear();
      const deadline = BigInt((await ledger.now()) + HOUR);
      const message = { owner: consumer.address, spender: place.escrow, value: total, nonce: 0n, deadline };
      const domain = { name: "USD Coin", version: "2", chainId, verifyingContract: usdc };
      const signature = await consumer.account.signTypedData({
        domain,
        types,
        primaryType: "Permit",
        message,
      });
      const { r, s, yParity } = parseSignature(signature);
      const args = [consumer.address, place.escrow, total, deadline, yParity + 27, r, s] as const;
      const data = encodeFunctionData({ abi: permitAbi, functionName: "permit", args });
      return [await ledger.send("permit", usdc, data)];
    },
    fund: (leases, amount, purpose) =>
      relay(
        purpose,
        leases.map(({ terms }) => ({
          signer: consumer.account,
          data: encodeFunctionData({
            abi: escrowAbi,
            functionName: "deposit",
            args: [terms.provider, terms.quote, amount],
          }),
        })),
      ),
    finish: (leases) =>
      relay(
        "close",
        leases.map(({ node, terms }) => ({
          signer: node.payout,
          data: encodeFunctionData({
            abi: escrowAbi,
            functionName: "refund",
            args: [consumer.address, terms.quote, USED],
          }),
        })),
      ),
  };
}
