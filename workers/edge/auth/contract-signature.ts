import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import { encodeFunctionData, parseAbi } from "viem/utils";
import { z } from "zod";
import { readLimited } from "../limited-body.ts";

const ABI = parseAbi(["function isValidSignature(bytes32 hash, bytes signature) view returns (bytes4)"]);
/** ERC-1271: the selector itself, right-padded to a word. */
const VALID = `0x1626ba7e${"00".repeat(28)}`;
/** A wallet's check may cost this much; a hostile contract gets no more of the node's time. */
const GAS = "0x7a120";
const TIMEOUT_MS = 3_000;
const ANSWER_LIMIT = 4_096;
const MAX_SIGNATURE_BYTES = 2_048;

const Answer = z.union([z.object({ result: z.string() }), z.object({ error: z.looseObject({}) })]);

/**
 * ERC-1271, for smart wallets: whether the contract at `address` takes `signature` for `hash`. A revert, an account
 * without code and an oversized answer are no. Rejects when the node cannot be asked: nothing is known then.
 */
export async function contractAccepts(
  rpcUrl: string,
  address: Address,
  hash: Bytes32,
  signature: HexBytes,
): Promise<boolean> {
  if (signature.length > 2 + 2 * MAX_SIGNATURE_BYTES) return false;
  const data = encodeFunctionData({ abi: ABI, functionName: "isValidSignature", args: [hash, signature] });
  const call = {
    jsonrpc: "2.0",
    id: 1,
    method: "eth_call",
    params: [{ to: address, data, gas: GAS }, "latest"],
  };
  const response = await fetch(rpcUrl, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(call),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const bytes = await readLimited(response.body, ANSWER_LIMIT);
  if (bytes === null) return false;
  const answer = Answer.parse(JSON.parse(new TextDecoder().decode(bytes)));
  return "result" in answer && answer.result.toLowerCase() === VALID;
}
