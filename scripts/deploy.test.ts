import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { leaseEscrowBytecode, usdcDoubleBytecode } from "@gpux/contracts/bytecode";
import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetChain } from "@gpux/contracts/devnet-client";
import { escrowAddress } from "@gpux/contracts/escrow-code";
import { devnetAccount } from "@gpux/contracts/roles";
import { Address } from "@gpux/protocol/ids";
import { createPublicClient, createTestClient, createWalletClient, http, parseEther } from "viem";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

// Each test starts the command as a process, some more than one.
vi.setConfig({ testTimeout: 120_000 });

const SCRIPT = fileURLToPath(new URL("deploy.ts", import.meta.url));
const payer = devnetAccount("relayer");
let devnet: Devnet;
let folder = "";
/** Another token than the chain's own, whose escrow nobody has deployed. */
let token: Address;

const reader = () => createPublicClient({ transport: http(devnet.url), cacheTime: 0 });
const cheat = () =>
  createTestClient({ chain: devnetChain(devnet.url, devnet.chainId), transport: http(), mode: "hardhat" });

beforeAll(async () => {
  devnet = await startDevnet({ host: "127.0.0.1" });
  folder = await mkdtemp(join(tmpdir(), "gpux-deploy-"));
  await devnet.fundEth(payer.address, parseEther("1"));
  const chain = devnetChain(devnet.url, devnet.chainId);
  const wallet = createWalletClient({ chain, transport: http(), account: payer.account });
  const hash = await wallet.sendTransaction({ data: usdcDoubleBytecode });
  const { contractAddress } = await reader().waitForTransactionReceipt({ hash });
  token = Address.parse(contractAddress);
});
afterAll(async () => {
  await devnet.close();
  await rm(folder, { recursive: true, force: true });
});

interface Finished {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function deploy(args: readonly string[], environment: Record<string, string> = {}): Promise<Finished> {
  const env = { PATH: process.env.PATH ?? "", GPUX_RPC: devnet.url, ...environment };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [SCRIPT, ...args], { env }, (error, out, err) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === "number") resolve({ code, out, err });
      else reject(error);
    });
  });
}
const local = (...more: string[]) => ["--network", "local", "--token", token, "--out", folder, ...more];
const withKey = { GPUX_PRIVATE_KEY: payer.privateKey };

test("a dry run names the address and every check, needs no key and sends nothing", async () => {
  const before = await reader().getBlockNumber();
  const { code, out, err } = await deploy(local("--dry-run"));
  expect(err).toContain("Nothing was sent.");
  expect([code, out.trim()]).toEqual([0, escrowAddress(token)]);
  for (const check of ["chain", "deterministic deployer", "P-256 precompile", "USD Coin, version 2", "free"])
    expect(err).toContain(check);
  expect(await reader().getBlockNumber()).toBe(before);
  expect(await reader().getCode({ address: escrowAddress(token) })).toBeUndefined();
});

test("refuses an account that could not pay the gas, before it sends", async () => {
  const { code, err } = await deploy(local(), { GPUX_PRIVATE_KEY: devnetAccount("consumer").privateKey });
  expect([code, err]).toEqual([1, expect.stringMatching(/holds 0 ETH.*no_ether/)]);
});

test("deploys once, checks what stands there, and says what to verify; again it changes nothing", async () => {
  const first = await deploy(local("--json"), withKey);
  expect(first.err).toContain("Deployed, and right.");
  expect(first.code).toBe(0);
  expect(JSON.parse(first.out)).toMatchObject({
    network: "local",
    chain_id: devnet.chainId,
    escrow: escrowAddress(token),
    deployed: true,
    transaction: expect.stringMatching(/^0x[0-9a-f]{64}$/),
  });
  expect(first.err).toMatch(/code +as compiled/);
  expect(first.err).toContain(`constructor arguments ${token.slice(2).padStart(64, "0")}`);
  expect(first.err).toMatch(/compiler +v0\.8\.37\+commit\.[0-9a-f]{8}/);

  const nonce = await reader().getTransactionCount({ address: payer.address });
  const second = await deploy(local(), withKey);
  expect(second.err).toContain("It stood there already, and is right: nothing was sent.");
  expect([second.code, second.out.trim()]).toEqual([0, escrowAddress(token)]);
  expect(await reader().getTransactionCount({ address: payer.address })).toBe(nonce);
  expect((await deploy(local("--dry-run"))).err).toContain("It stands there already, and is right.");
});

test("the standard JSON that it writes compiles to the very code that is deployed", async () => {
  const file = join(folder, "LeaseEscrow.standard.json");
  expect(Object.keys(JSON.parse(await readFile(file, "utf8")).sources)).not.toContain(
    "project/src/test/UsdcDouble.sol",
  );
  // solc-js takes over the process's handlers of errors, so it gets one of its own.
  const program = `
    const solc = require(${JSON.stringify(createRequire(import.meta.url).resolve("solc"))});
    const output = JSON.parse(solc.compile(require("node:fs").readFileSync(${JSON.stringify(file)}, "utf8")));
    process.stdout.write(output.contracts["project/src/LeaseEscrow.sol"].LeaseEscrow.evm.bytecode.object);`;
  const code = await new Promise<string>((resolve, reject) => {
    const options = { maxBuffer: 1 << 24 };
    execFile(process.execPath, ["-e", program], options, (error, out) =>
      error === null ? resolve(out) : reject(error),
    );
  });
  expect(`0x${code}`).toBe(leaseEscrowBytecode);
});

test("refuses another contract that stands at the address", async () => {
  const address = escrowAddress(token);
  const code = (await reader().getCode({ address })) ?? "0x";
  await cheat().setCode({ address, bytecode: "0x5f5ff3" });
  const { code: exit, err } = await deploy(local(), withKey);
  expect([exit, err]).toEqual([1, expect.stringContaining("other_code")]);
  await cheat().setCode({ address, bytecode: code });
});

test("refuses a token without EIP-3009, and a chain that is another", async () => {
  const code = (await reader().getCode({ address: token })) ?? "0x";
  // The selector of the overload that takes bytes, renamed.
  await cheat().setCode({
    address: token,
    bytecode: `0x${code.slice(2).replaceAll("6388b7ab63", "6388b7ab62")}`,
  });
  const noEip3009 = await deploy(local("--dry-run"));
  expect([noEip3009.code, noEip3009.err]).toEqual([1, expect.stringMatching(/EIP-3009.*no_eip3009/)]);
  await cheat().setCode({ address: token, bytecode: code });

  const elsewhere = await deploy(["--network", "op-sepolia"], withKey);
  expect([elsewhere.code, elsewhere.err]).toEqual([
    1,
    expect.stringMatching(/serves chain 31337.*wrong_chain/),
  ]);
});

test.each([
  ["no network", [], 2, "--network is missing"],
  ["an unknown network", ["--network", "base"], 2, "op-mainnet"],
  ["a URL that is none", ["--network", "local", "--rpc", "localhost:8545"], 2, "--rpc"],
  ["an unknown flag", ["--network", "local", "--force"], 2, "--help"],
  [
    "another token on a public chain",
    ["--network", "op-mainnet", "--token", `0x${"11".repeat(20)}`],
    2,
    "fixed",
  ],
  ["no key", ["--network", "local"], 3, "GPUX_PRIVATE_KEY"],
  [
    "nobody behind the URL",
    ["--network", "local", "--dry-run", "--rpc", "http://127.0.0.1:9"],
    1,
    "fetch failed",
  ],
] as const)("says what is wrong with %s, without a stack trace", async (_, args, code, text) => {
  const finished = await deploy(args);
  expect([finished.code, finished.err]).toEqual([code, expect.stringContaining(text)]);
  expect(finished.err).not.toMatch(/^\s+at /m);
});

test("--help names every option", async () => {
  const { code, out } = await deploy(["--help"]);
  expect(code).toBe(0);
  for (const option of ["--network", "--rpc", "--dry-run", "--wallet", "--password-file", "--token", "--out"])
    expect(out).toContain(option);
});
