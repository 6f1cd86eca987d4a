import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { devnetAccount } from "@gpux/contracts/roles";
import { WellKnown } from "@gpux/protocol/answers";
import { types } from "@gpux/protocol/eip712";
import { Address } from "@gpux/protocol/ids";
import { verifyProof } from "@gpux/protocol/merkle";
import {
  createPublicClient,
  type Hex,
  hashTypedData,
  http,
  recoverTypedDataAddress,
  verifyTypedData,
} from "viem";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { startChain } from "../../scripts/stack/stack.ts";
import { freePort, until } from "./testing/market.ts";
import { familyOf, type Process, running } from "./testing/processes.ts";
import { type StartProcess, shell, startProcess } from "./testing/start-process.ts";
import { type Report, readReport } from "./testing/start-report.ts";

const onLinux = process.platform === "linux";

let folder = "";
const folders: string[] = [];

/** Ports of its own, and the folder that goes with them. */
async function place(): Promise<{ args: string[]; port: number; chainPort: number; stackFolder: string }> {
  const [port, chainPort] = [await freePort(), await freePort()];
  const stackFolder = fileURLToPath(new URL(`../../.gpux/start-${port}`, import.meta.url));
  folders.push(stackFolder);
  return { args: ["--port", `${port}`, "--chain-port", `${chainPort}`], port, chainPort, stackFolder };
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  const listens = await new Promise<boolean>((resolve) => {
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => resolve(true));
  });
  await new Promise((resolve) => probe.close(resolve));
  return listens;
}

async function nothingIsLeft(family: readonly Process[], ports: readonly number[]): Promise<void> {
  await until(async () => running(family).length === 0, "every process of the stack is gone");
  // Another test's stack may have been given one of them the moment that it was free.
  for (const port of ports) await until(() => isFree(port), `port ${port} is free`);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-start-"));
});
afterAll(async () => {
  for (const each of [folder, ...folders]) await rm(each, { recursive: true, force: true });
});

describe("npm start -- --once --report FILE", () => {
  let report: Report;
  let code: number | null;
  let output = "";
  let ports: number[] = [];
  let family: Process[] = [];

  beforeAll(async () => {
    const { args, port, chainPort } = await place();
    const file = join(folder, "once.json");
    // From another folder than the repository: nothing may depend on where it is started.
    const start = startProcess(["--once", "--report", file, ...args], { cwd: folder });
    await start.said("agent ");
    family = onLinux ? familyOf(start.child.pid ?? -1) : [];
    code = await start.ended;
    output = start.output();
    ports = [port, chainPort];
    report = await readReport(file);
  }, 240_000);

  test("ends with 0 and leaves no process and no port behind", async () => {
    expect({ code, output }).toMatchObject({ code: 0 });
    if (onLinux) expect(family.map(({ command }) => command)).toContain("workerd");
    await nothingIsLeft(family, ports);
  });

  test("tells a person the same as the report", () => {
    for (const { path, sha256 } of report.images) {
      expect(output).toContain(path);
      expect(output).toContain(sha256);
    }
    for (const { hash } of report.transactions) expect(output).toContain(hash);
    for (const { step } of report.timeline) expect(output).toContain(step);
  });

  test("writes two PNGs whose hashes are those of the receipts", async () => {
    expect(report.images.map(({ path }) => basename(path))).toEqual(["room.png", "room-denoised.png"]);
    expect(report.receipts).toHaveLength(2);
    for (const [index, { path, sha256 }] of report.images.entries()) {
      const bytes = await readFile(path);
      expect(bytes.subarray(1, 4).toString("latin1")).toBe("PNG");
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(sha256);
      expect(report.receipts[index]?.receipt.outputHashes).toEqual([`0x${sha256}`]);
    }
    expect(new Set(report.images.map(({ sha256 }) => sha256)).size).toBe(2);
  });

  test("moves exactly the receipts' prices, and nothing appears or is lost", () => {
    const { before, after } = report.balances;
    const sum = (books: Record<string, string>) =>
      Object.values(books).reduce((total, amount) => total + BigInt(amount), 0n);
    const prices = report.receipts.reduce((total, { receipt }) => total + receipt.price, 0n);
    const change = (party: keyof typeof before) => BigInt(after[party]) - BigInt(before[party]);
    expect(prices).toBeGreaterThan(0n);
    expect(sum(after)).toBe(sum(before));
    expect(change("provider") + change("fee_recipient")).toBe(prices);
    expect(change("fee_recipient")).toBe((prices * 500n) / 10_000n);
    expect(change("consumer")).toBe(-prices);
    expect(after.escrow).toBe("0");
  });

  test("tells each transaction with what it cost, the L1 fee among it", () => {
    const [fund, close, ...payouts] = report.transactions.map(({ kind }) => kind);
    expect([fund, close]).toEqual(["fund", "close"]);
    // The three payouts share a transaction when they reach the relayer together.
    expect(new Set(payouts)).toEqual(new Set(["withdraw"]));
    expect(payouts.length).toBeLessThanOrEqual(3);
    for (const { gas, l1_fee } of report.transactions) {
      expect(BigInt(gas)).toBeGreaterThan(21_000n);
      expect(BigInt(l1_fee)).toBeGreaterThan(0n);
    }
  });
});

describe("npm start, which stays up", () => {
  let start: StartProcess;
  let report: Report;
  let at: Awaited<ReturnType<typeof place>>;

  beforeAll(async () => {
    at = await place();
    const file = join(folder, "stays.json");
    start = startProcess(["--report", file, ...at.args]);
    await start.said("--out room.png");
    report = await readReport(file);
  }, 240_000);
  afterAll(() => void start.child.kill("SIGKILL"));

  test("has receipts that the node and the meter signed, by viem's own word", async () => {
    const facts = await fetch(`http://127.0.0.1:${at.port}/.well-known/gpux`);
    const { meter, settlement } = WellKnown.parse(await facts.json());
    const domain = {
      name: "GPUX Lease Escrow",
      version: "1",
      chainId: settlement.chain_id,
      verifyingContract: settlement.escrow,
    } as const;
    const node = devnetAccount("agent").address;
    for (const { receipt, usage, proof, provider_signature, edge_signature } of report.receipts) {
      const leaf = hashTypedData({
        domain,
        types: { Receipt: types.Receipt },
        primaryType: "Receipt",
        message: receipt,
      });
      expect(verifyProof(usage.evidence, leaf, receipt.sequence - 1, usage.size, proof)).toBe(true);
      const { cumulative, evidence } = usage;
      const typed = {
        domain,
        types: { Usage: types.Usage },
        primaryType: "Usage",
        message: { leaseId: receipt.leaseId, cumulative, evidence },
      } as const;
      expect(receipt.node).toBe(node);
      expect(await verifyTypedData({ ...typed, address: node, signature: provider_signature })).toBe(true);
      const signer = await recoverTypedDataAddress({ ...typed, signature: edge_signature });
      expect(Address.parse(signer)).toBe(meter);
    }
    expect(report.receipts.map(({ receipt }) => receipt.sequence)).toEqual([1, 2]);
  });

  test("nobody but the relayer, and who deployed the contracts, spent ETH", async () => {
    const chain = createPublicClient({ transport: http(`http://127.0.0.1:${at.chainPort}`), cacheTime: 0 });
    const relayer = devnetAccount("relayer").address;
    const deployer = devnetAccount("deployer").address;
    const senders = new Map<string, Hex[]>();
    const height = await chain.getBlockNumber();
    for (let blockNumber = 0n; blockNumber <= height; blockNumber += 1n) {
      const { transactions } = await chain.getBlock({ blockNumber, includeTransactions: true });
      for (const { from, hash, input } of transactions) {
        senders.set(from, [...(senders.get(from) ?? []), hash]);
        const told = report.transactions.find((each) => each.hash === hash);
        if (told !== undefined) expect(told.calldata_bytes).toBe((input.length - 2) / 2);
      }
    }
    expect([...senders.keys()].sort()).toEqual([deployer, relayer].sort());
    expect(senders.get(relayer)).toEqual(report.transactions.map(({ hash }) => hash));

    let paid = 0n;
    for (const { hash, gas, l1_fee } of report.transactions) {
      const receipt = await chain.getTransactionReceipt({ hash });
      const l1Fee = BigInt(z.object({ l1Fee: z.string() }).parse(receipt).l1Fee);
      expect([receipt.status, receipt.gasUsed, l1Fee]).toEqual(["success", BigInt(gas), BigInt(l1_fee)]);
      paid += receipt.gasUsed * receipt.effectiveGasPrice + l1Fee;
    }
    const endowed = await chain.getBalance({ address: relayer, blockNumber: 0n });
    expect(endowed - (await chain.getBalance({ address: relayer }))).toBe(paid);
    for (const role of ["consumer", "provider", "agent", "meter", "feeRecipient"] as const)
      expect(await chain.getBalance({ address: devnetAccount(role).address })).toBe(0n);
  });

  test("prints a command for the next job that works as it stands", async () => {
    const line = start.output().split("from another terminal:")[1]?.trim() ?? "";
    const image = join(folder, "next.png");
    // Only the name of the file is another, to leave none in the repository.
    const next = shell(line.replace("--out room.png", `--out ${image}`));
    expect({ code: await next.ended, output: next.output() }).toMatchObject({ code: 0 });
    expect(next.output()).toContain("signed by node and edge");
    expect((await readFile(image)).subarray(1, 4).toString("latin1")).toBe("PNG");
  });

  test("Ctrl-C ends it and all that it started", async () => {
    const family = onLinux ? familyOf(start.child.pid ?? -1) : [];
    start.child.kill("SIGINT");
    expect(await start.ended).toBe(130);
    await nothingIsLeft(family, [at.port, at.chainPort]);
  });
});

describe.runIf(onLinux)("npm start, killed in a way that it cannot notice", () => {
  async function upAndWorking(within: readonly string[] = []) {
    const at = await place();
    const start = startProcess(at.args, { within });
    await start.said("publish functions");
    const family = familyOf(start.child.pid ?? -1);
    const commands = family.map(({ command }) => command);
    expect(commands).toContain("workerd");
    // Itself, the agent and the agent's GPU process; Node calls its main thread so.
    expect(commands.filter((name) => /node|MainThread/.test(name)).length).toBeGreaterThanOrEqual(2);
    return { start, family, ports: [at.port, at.chainPort] };
  }

  test("leaves no orphan and no port", async () => {
    const { start, family, ports } = await upAndWorking();
    start.child.kill("SIGKILL");
    await nothingIsLeft(family, ports);
  });

  test("ends when only who started it was killed, as a killed npm does", async () => {
    // A `trap` keeps the shell from giving its process to its only command.
    const { start, family, ports } = await upAndWorking(["/bin/sh", "-c", 'trap : USR1; "$0" "$@"']);
    expect(family.length).toBeGreaterThan(3);
    start.child.kill("SIGKILL");
    await nothingIsLeft(family, ports);
  });
});

describe("npm start says in a line what a person can mend", () => {
  const taken: Server[] = [];
  afterAll(async () => {
    for (const each of taken) await new Promise((resolve) => each.close(resolve));
  });

  async function take(port: number): Promise<void> {
    const server = createServer();
    taken.push(server);
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  }

  async function fails(start: StartProcess): Promise<{ code: number | null; output: string }> {
    const code = await start.ended;
    const output = start.output();
    expect(output).not.toMatch(/^\s+at .*:\d+:\d+\)?$/m);
    return { code, output };
  }

  test.each(["port", "chainPort"] as const)("the %s is taken", async (which) => {
    const at = await place();
    await take(at[which]);
    const { code, output } = await fails(startProcess(at.args));
    expect(code).toBe(1);
    expect(output).toMatch(new RegExp(`port ${at[which]} on 127.0.0.1 is taken\\. .*npm start -- --`, "i"));
  });

  test.runIf(onLinux)("it may not write", async () => {
    const at = await place();
    await mkdir(at.stackFolder, { recursive: true, mode: 0o555 });
    // Root may write everywhere, so it gives that right up; anybody else has not got it.
    const rights = ["-dac_override", "-dac_read_search"].join(",");
    const within = process.getuid?.() === 0 ? ["setpriv", `--bounding-set=${rights}`, "--"] : [];
    const { code, output } = await fails(startProcess(at.args, { within }));
    expect(code).toBe(1);
    expect(output).toMatch(/^No permission to write: EACCES.*\.gpux.*$/m);
  });

  test("the report's folder is not there, before anything is started", async () => {
    const at = await place();
    const { code, output } = await fails(
      startProcess(["--report", join(folder, "no", "such", "report.json"), ...at.args]),
    );
    expect({ code, output }).toMatchObject({ code: 1, output: expect.stringContaining("--report") });
    expect(output).not.toContain("Optimism");
  });

  test.each([
    ["an unknown option", ["--twice"], "--twice"],
    ["a port that is none", ["--port", "http"], "http is not a port number"],
  ])("%s: what there is to choose from", async (_, args, text) => {
    const { code, output } = await fails(startProcess(args));
    expect(code).toBe(2);
    expect(output).toContain(text);
    expect(output).toContain("--report FILE");
  });
});

test("the local chain's clock goes on while nobody sends anything, so that a long job's close is not refused", async () => {
  // What may be paid rises with the time of the latest block, and a relayer asks before it sends.
  const devnet = await startChain(await freePort());
  try {
    const chain = createPublicClient({ transport: http(devnet.url), cacheTime: 0 });
    const before = await chain.getBlock();
    await until(
      async () => (await chain.getBlock()).timestamp > before.timestamp,
      "an empty block was mined",
    );
  } finally {
    await devnet.close();
  }
});
