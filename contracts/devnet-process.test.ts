import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Address } from "@gpux/protocol/ids";
import { afterEach, expect, test } from "vitest";
import { z } from "zod";

const program = fileURLToPath(new URL("devnet.ts", import.meta.url));
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

function devnet(...args: string[]) {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let talk = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    talk += text;
  });
  return { child, lines: createInterface(child.stdout), talk: () => talk };
}

const Facts = z.strictObject({
  url: z.url(),
  chainId: z.literal(31_337),
  usdc: Address,
  escrow: Address,
  multicall3: Address,
  deployer: Address,
});

test("prints one line of JSON when ready, and goes with status 0 on SIGTERM", async () => {
  const { child, lines } = devnet("--port", "0", "--json");
  const [line] = await once(lines, "line");
  const facts = Facts.parse(JSON.parse(z.string().parse(line)));
  const answer = await fetch(facts.url, {
    method: "POST",
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] }),
  });
  expect(await answer.json()).toMatchObject({ result: "0x7a69" });
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([0, null]);
});

test("says in one sentence that its port is taken", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const { port } = z.object({ port: z.number() }).parse(holder.address());
  const { child, talk } = devnet("--port", String(port));
  expect(await once(child, "close")).toEqual([1, null]);
  expect(talk()).toBe(`Port ${port} on 127.0.0.1 is taken. Choose another, or stop what listens there.\n`);
  holder.close();
});

test.each([
  ["--port", "eight"],
  ["--prot", "1"],
])(
  "refuses %s %s without a stack trace",
  async (...args) => {
    const { child, talk } = devnet(...args);
    expect(await once(child, "close")).toEqual([1, null]);
    expect(talk()).toContain(args[0] === "--port" ? "eight is not a number" : "--prot");
    expect(talk()).not.toContain("    at ");
  },
  60_000,
);
