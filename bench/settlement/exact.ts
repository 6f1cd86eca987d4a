import { encodeFunctionData, keccak256, parseAbi, parseSignature, stringToBytes } from "viem";
import { consumer, nodesOf, USED } from "../../scripts/seed/scenario.ts";
import type { Ledger, Sent } from "./ledger.ts";

const abi = parseAbi([
  "function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)",
]);
const types = {
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
} as const;

/**
 * What the x402 scheme `exact` settles each request with: a `transferWithAuthorization` of its own, in the form for
 * plain keys, which costs a little less than the one with `bytes`. The same money as one lease, in `jobs` parts.
 */
export function payEach(ledger: Ledger, jobs: number): Promise<Sent[]> {
  return ledger.apart(async () => {
    const { chainId, usdc } = ledger.chain;
    const [node] = nodesOf(1);
    if (node === undefined) throw new Error("there is no node");
    const price = USED / BigInt(jobs);
    await ledger.chain.mint(consumer.address, price * BigInt(jobs) + 1n);
    const validBefore = BigInt((await ledger.now()) + 86_400);
    const sent: Sent[] = [];
    for (let job = 0; job < jobs; job += 1) {
      const message = {
        from: consumer.address,
        to: node.payout.address,
        value: price,
        validAfter: 0n,
        validBefore,
        nonce: keccak256(stringToBytes(`job ${job}`)),
      };
      const { r, s, yParity } = parseSignature(
        await consumer.account.signTypedData({
          domain: { name: "USD Coin", version: "2", chainId, verifyingContract: usdc },
          types,
          primaryType: "TransferWithAuthorization",
          message,
        }),
      );
      const { from, to, value, validAfter, nonce } = message;
      const args = [from, to, value, validAfter, validBefore, nonce, yParity + 27, r, s] as const;
      const data = encodeFunctionData({ abi, functionName: "transferWithAuthorization", args });
      sent.push(await ledger.send("job", usdc, data));
    }
    if ((await ledger.balanceOf(consumer.address)) !== 1n) throw new Error("exact: not all jobs were paid");
    return sent;
  });
}
