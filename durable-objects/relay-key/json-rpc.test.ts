import { afterEach, describe, expect, test, vi } from "vitest";
import { openChain } from "./chain.ts";
import { Count, connect, NodeFault } from "./json-rpc.ts";

const CHAIN = 10;
type Node = (method: string) => unknown;
const A = "https://a.example/";
const B = "https://b.example/";

/** Two endpoints; each answers by method, `undefined` breaks the connection, a string is the whole body. */
function nodes(a: Node, b: Node): { asked: string[] } {
  const asked: string[] = [];
  vi.stubGlobal("fetch", async (url: string, init: { body: string }) => {
    const { method } = JSON.parse(init.body);
    asked.push(`${url === A ? "a" : "b"} ${method}`);
    const answer = (url === A ? a : b)(method);
    if (answer === undefined) throw new TypeError("connection refused");
    return new Response(typeof answer === "string" ? answer : JSON.stringify(answer));
  });
  return { asked };
}
const honest =
  (value: unknown): Node =>
  (method) => ({ result: method === "eth_chainId" ? "0xa" : value });
const ask = () => connect([A, B], CHAIN, 60_000).ask("eth_blockNumber", [], Count);

afterEach(() => vi.unstubAllGlobals());

describe("RLY-3 of two nodes the one that makes sense is believed", () => {
  const bad: [title: string, node: Node][] = [
    ["does not answer", () => undefined],
    ["answers nonsense", () => "<html>"],
    ["is on another chain", () => ({ result: "0x1" })],
    ["answers what does not fit", honest("0xzz")],
    [
      "is over its limit",
      (method) =>
        method === "eth_chainId" ? { result: "0xa" } : { error: { code: -32005, message: "limit exceeded" } },
    ],
    [
      "has no state",
      (method) =>
        method === "eth_chainId"
          ? { result: "0xa" }
          : { error: { code: -32000, message: "header not found" } },
    ],
  ];
  test.each(bad)("when the first %s", async (_title, node) => {
    nodes(node, honest("0x7"));
    expect(await ask()).toEqual({ ok: true, value: 7 });
  });

  test("and none when neither does", async () => {
    nodes(
      () => undefined,
      () => "{}",
    );
    await expect(ask()).rejects.toBeInstanceOf(NodeFault);
  });

  test("a fault of a moment is no fault of the question: it is asked again", async () => {
    let faults = 2;
    const { asked } = nodes(
      (method) =>
        method === "eth_chainId" ? { result: "0xa" } : faults-- > 0 ? "<html>" : { result: "0x7" },
      () => undefined,
    );
    const rpc = connect([A], CHAIN, 60_000);
    expect(await rpc.ask("eth_blockNumber", [], Count)).toEqual({ ok: true, value: 7 });
    expect(asked.filter((each) => each === "a eth_blockNumber")).toHaveLength(3);
    faults = 2;
    expect(await rpc.askSeveral("eth_blockNumber", [], Count)).toEqual([7]);
  });

  test("who let us wait for the time-out, or rests, is not asked again at once", async () => {
    let asked = 0;
    vi.stubGlobal("fetch", async (_url: string, init: { signal: AbortSignal }) => {
      asked += 1;
      await new Promise((_resolve, reject) => init.signal.addEventListener("abort", reject));
    });
    await expect(connect([A], CHAIN, 20).ask("eth_blockNumber", [], Count)).rejects.toThrow(
      "no answer within 20 ms",
    );
    expect(asked).toBe(1);
    const broken = nodes(
      () => undefined,
      () => undefined,
    );
    const rpc = connect([A], CHAIN, 60_000);
    for (let i = 0; i < 2; i++)
      await expect(rpc.ask("eth_blockNumber", [], Count)).rejects.toBeInstanceOf(NodeFault);
    expect(broken.asked).toHaveLength(4);
  });

  test("a contract's words cannot make a node look bad", async () => {
    const revert = { error: { code: 3, message: "execution reverted: rate limit exceeded", data: "0x" } };
    const { asked } = nodes(
      (method) => (method === "eth_chainId" ? { result: "0xa" } : revert),
      honest("0x7"),
    );
    expect(await ask()).toMatchObject({ ok: false, code: 3 });
    expect(asked.some((each) => each.startsWith("b"))).toBe(false);
  });

  test("one that keeps failing is asked last until it has rested", async () => {
    const { asked } = nodes(() => undefined, honest("0x7"));
    const rpc = connect([A, B], CHAIN, 60_000);
    for (let i = 0; i < 4; i++) await rpc.ask("eth_blockNumber", [], Count);
    expect(asked.filter((each) => each.startsWith("a"))).toHaveLength(3);
    expect(rpc.endpoints()).toMatchObject([{ faults: 3, resting: true }, { resting: false }]);
  });
});

describe("RLY-3 two nodes are held against each other", () => {
  const hash = `0x${"1".repeat(64)}` as const;
  const receipt = (change: object) => ({
    transactionHash: hash,
    status: "0x1",
    blockNumber: "0x1",
    blockHash: hash,
    gasUsed: "0x1",
    effectiveGasPrice: "0x1",
    logs: [],
    ...change,
  });
  const chain = () => openChain([A, B], CHAIN, 60_000);

  test("receipts that contradict each other are a fault, and one that only one has seen is not there", async () => {
    nodes(honest(receipt({})), honest(receipt({ status: "0x0" })));
    await expect(chain().receipt(hash)).rejects.toBeInstanceOf(NodeFault);
    nodes(honest(receipt({})), honest(null));
    expect(await chain().receipt(hash)).toBeNull();
    nodes(honest(receipt({})), honest(receipt({})));
    expect(await chain().receipt(hash)).toMatchObject({ status: "0x1" });
    nodes(honest(receipt({})), () => undefined);
    expect(await chain().receipt(hash)).toMatchObject({ status: "0x1" });
  });

  test("the lower count and the lower finalized block count", async () => {
    const block = (n: string) => ({ number: n, hash, timestamp: "0x1", baseFeePerGas: "0x1" });
    nodes(honest("0x9"), honest("0x4"));
    expect(await chain().transactionCount(hash)).toBe(4);
    nodes(honest(block("0x9")), honest(block("0x4")));
    expect((await chain().block("finalized"))?.number).toBe(4);
  });

  const words: [says: string, means: string][] = [
    ["already known", "known"],
    ["Nonce too high. Expected nonce to be 4 but got 5.", "early"],
    ["nonce too low: next nonce 5, tx nonce 4", "taken"],
    ["replacement transaction underpriced", "underpriced"],
    ["transaction underpriced", "underpriced"],
    ["insufficient funds for gas * price + value", "poor"],
  ];
  test.each(words)("%s means %s", async (message, means) => {
    const node: Node = (method) =>
      method === "eth_chainId" ? { result: "0xa" } : { error: { code: -32000, message } };
    nodes(node, node);
    expect(await chain().send("0x02")).toBe(means);
  });
});
