import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { main } from "@gpux/cli/program";
import { portalAbi } from "@gpux/cli/rescue/portal";
import { type Finished, runCommand } from "@gpux/cli/testing/command";
import { createScreen } from "@gpux/cli/testing/screen";
import { devnetChain } from "@gpux/contracts/devnet-client";
import { devnetAccount } from "@gpux/contracts/roles";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Address, HexBytes } from "@gpux/protocol/ids";
import type { SettleIntent } from "@gpux/protocol/intent";
import { JobView } from "@gpux/protocol/job";
import { KeptIntent } from "@gpux/protocol/kept";
import { formatAmount } from "@gpux/protocol/money";
import { createPublicClient, createWalletClient, decodeFunctionData, http, parseEther } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type Market, openMarket, scene, until } from "./testing/market.ts";

// What users hold is enough: edge, relayer, meter and agent are dead here, and money still goes where it belongs.

const AGENT = fileURLToPath(new URL("../../agent/bin.ts", import.meta.url));
const pathtrace = fileURLToPath(new URL("../../examples/functions/pathtrace", import.meta.url));
const DAY_S = 86_400;

/** Somebody with ETH, who is no party of the lease. */
const stranger = privateKeyToAccount(generatePrivateKey());
const strangerKey = generatePrivateKey();
const strangerAddress = Address.parse(privateKeyToAccount(strangerKey).address);

let market: Market;
let folder = "";
let lease = "";
let price = 0n;
let funded = 0n;
let vouchers = "";
let usdcBefore = 0n;

const consumerKey = () => ({ GPUX_PRIVATE_KEY: devnetAccount("consumer").privateKey });
const gasKey = { GPUX_GAS_PRIVATE_KEY: strangerKey };
const environment = () => ({ GPUX_CONFIG_DIR: folder, GPUX_RPC: market.devnet.url });
const rescue = (args: readonly string[], keys: Record<string, string> = {}) =>
  runCommand(["rescue", ...args], { ...environment(), ...keys });
/** The same without a process of its own, where that is not the point. */
async function quick(
  args: readonly string[],
  keys: Record<string, string> = environment(),
  input = "",
): Promise<Finished> {
  const screen = createScreen(keys, false, input);
  const code = await main(["rescue", ...args], screen.terminal);
  return { code, out: screen.out(), err: screen.err() };
}
const atEscrow = () => ["--escrow", market.devnet.escrow];

function ok(finished: Finished): string {
  expect(finished).toMatchObject({ code: 0 });
  return finished.out;
}

function gpuxAgent(...args: string[]): Promise<Finished> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH ?? "" };
    execFile(process.execPath, [AGENT, ...args], { env }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    );
  });
}

const reader = () => createPublicClient({ transport: http(market.devnet.url), cacheTime: 0 });

async function statusOf(id: string) {
  const { out } = await quick(["status", id, "--json"]);
  return z
    .looseObject({
      status: z.string(),
      paid: z.string(),
      funded: z.string(),
      reclaimable_at: z.int().nullable(),
      now: z.int(),
      lease_hash: HexBytes,
      next: z.array(z.looseObject({ act: z.string(), from: z.int().nullable() })),
    })
    .parse(JSON.parse(out));
}

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-rescue-e2e-"));
  market = await openMarket();
  await market.devnet.fundEth(strangerAddress, parseEther("1"));
  usdcBefore = (await market.ledger.balances()).consumer;
  const room = await file(
    "room.json",
    JSON.stringify(scene({ width: 64, height: 48, samples: 2 }).scene.json),
  );
  const args = ["run", pathtrace, "--input", `scene=@${room}`, "--json", "--out", join(folder, "room.png")];
  const run = await runCommand(args, { ...environment(), ...consumerKey(), GPUX_URL: market.edge.url });
  const { job } = z.looseObject({ job: JobView }).parse(JSON.parse(ok(run)));
  lease = job.lease_id;
  price = job.price;
  funded = (await market.client().leases.get(lease)).funded;
  // The meter signs after the answer; from then on the agent holds both signatures.
  await until(async () => {
    vouchers = (await gpuxAgent("vouchers", "--dir", market.agentSetup.folder)).out;
    return vouchers !== "";
  }, "the agent holds a voucher");
  await market.edge.kill();
  await market.agent.kill();
});
afterAll(async () => {
  await market?.stop();
  await rm(folder, { recursive: true, force: true });
});

const kept = () => KeptIntent.parse(JSON.parse(vouchers));
function settlement(): z.input<typeof SettleIntent> {
  const { intent } = z.encode(KeptIntent, kept());
  if (intent.kind !== "settle") throw new Error("a voucher settles");
  return intent;
}

describe("with edge, relayer, meter and agent dead", () => {
  test("the command has kept the lease before it was funded", async () => {
    expect(await readdir(join(folder, "leases"))).toEqual([`${lease}.json`]);
  });

  test("status says what the chain says and what can be done from when", async () => {
    const status = await statusOf(lease);
    expect(status).toMatchObject({ status: "open", paid: "0", funded: funded.toString() });
    expect(status.next.map(({ act }) => act)).toEqual(["exit", "settle", "reclaim"]);
    const shown = ok(await rescue(["status", lease]));
    expect(shown).toMatch(new RegExp(`money +0\\.00 paid of ${formatAmount(funded)} USDC`));
    expect(shown).toMatch(/can reclaim +from .*Z \(in \d+ h\)/);
  });

  test("status finds a lease by its on-chain id alone, and by its id and the payer's wallet", async () => {
    const elsewhere = { ...environment(), GPUX_CONFIG_DIR: join(folder, "empty") };
    const { lease_hash } = await statusOf(lease);
    const byHash = ["status", lease_hash, ...atEscrow(), "--json"];
    expect(JSON.parse(ok(await quick(byHash, elsewhere)))).toMatchObject({ id: lease, status: "open" });
    const byId = ["status", lease, ...atEscrow(), "--json"];
    expect(JSON.parse(ok(await quick(byId, { ...elsewhere, ...consumerKey() })))).toMatchObject({
      lease_hash,
    });
    expect((await quick(byId, elsewhere)).code, "without a wallet there is nothing to look by").toBe(2);
  });

  test("a provider settles its last voucher and withdraws, with a stranger's gas", async () => {
    // A voucher over more than was signed pays nothing.
    const bent = { ...z.encode(KeptIntent, kept()), intent: { ...settlement(), cumulative: "149999" } };
    const asStranger = { ...environment(), GPUX_PRIVATE_KEY: strangerKey };
    const forged = await quick(["send", "-", "--yes"], asStranger, JSON.stringify(bent));
    expect([forged.code, forged.err]).toEqual([1, expect.stringContaining("code: bad_signature")]);

    const path = await file("vouchers.jsonl", vouchers);
    const sent = await rescue(["send", path, "--yes", "--json"], { GPUX_PRIVATE_KEY: strangerKey });
    expect(JSON.parse(ok(sent))).toMatchObject({ kind: "settle", status: "landed" });
    expect((await statusOf(lease)).paid).toBe(price.toString());

    const again = await rescue(["send", path, "--yes", "--json"], { GPUX_PRIVATE_KEY: strangerKey });
    expect(JSON.parse(ok(again))).toMatchObject({ status: "already", code: "paid_already" });

    const { provider } = await market.ledger.balances();
    const account = devnetAccount("provider").address;
    ok(await rescue(["withdraw", account, "--yes", ...atEscrow()], { GPUX_PRIVATE_KEY: strangerKey }));
    const fee = (price * 500n) / 10_000n;
    expect((await market.ledger.balances()).provider - provider).toBe(price - fee);
  });

  test("--l1 gives the OptimismPortal call that says the same as --print, also without any node", async () => {
    const printed = JSON.parse(ok(await rescue(["exit", lease, "--print", "--json"], consumerKey())));
    expect(printed).toMatchObject({ chain_id: market.devnet.chainId, to: market.devnet.escrow, value: "0" });
    const portal = `0x${"9a".repeat(20)}`;
    const offline = { GPUX_CONFIG_DIR: folder, ...consumerKey() };
    const l1 = ["exit", lease, "--l1", "--portal", portal, "--json"];
    const forced = JSON.parse(ok(await quick(l1, offline)));
    expect(forced).toMatchObject({ to: portal, value: "0" });
    const { functionName, args } = decodeFunctionData({ abi: portalAbi, data: HexBytes.parse(forced.data) });
    const [to, value, gasLimit, isCreation, data] = args;
    expect([functionName, Address.parse(to), value, isCreation, data]).toEqual([
      "depositTransaction",
      market.devnet.escrow,
      0n,
      false,
      printed.data,
    ]);
    expect(gasLimit).toBeGreaterThanOrEqual(BigInt(printed.gas));
    const call = decodeFunctionData({ abi: leaseEscrowAbi, data: HexBytes.parse(data) });
    expect(call.functionName).toBe("requestExit");
  });

  test("a consumer exits with its own signature alone, and once", async () => {
    const exited = await rescue(["exit", lease, "--yes"], { ...consumerKey(), ...gasKey });
    expect(ok(exited)).toContain("done");
    expect(exited.err).toMatch(/The rest is free from .*Z \(in 24 h\)/);
    expect((await statusOf(lease)).status).toBe("exiting");
    const again = await quick(["exit", lease, "--yes"], { ...environment(), ...consumerKey(), ...gasKey });
    expect([again.code, again.out]).toEqual([0, expect.stringContaining("asked for already")]);
  });

  test("reclaim says from when it may be, and then works from a printed call that anybody sends", async () => {
    const { reclaimable_at } = await statusOf(lease);
    const early = await quick(["reclaim", lease, "--yes"], { ...environment(), ...gasKey });
    const from = new Date((reclaimable_at ?? 0) * 1_000).toISOString().slice(0, 16);
    expect([early.code, early.err]).toEqual([1, expect.stringContaining(`Its time comes at ${from}`)]);
    expect(early.err).toContain("code: too_early");
    const warned = await quick(["reclaim", lease, "--print"]);
    expect([warned.code, warned.err]).toEqual([0, expect.stringContaining("Now it would not land.")]);

    await market.devnet.increaseTime(DAY_S);
    const printed = await rescue(["reclaim", lease, "--print", "--json"]);
    const { to, data, gas } = z
      .looseObject({ to: HexBytes, data: HexBytes, gas: z.string() })
      .parse(JSON.parse(ok(printed)));
    const wallet = createWalletClient({
      account: privateKeyToAccount(strangerKey),
      chain: devnetChain(market.devnet.url, market.devnet.chainId),
      transport: http(),
    });
    const hash = await wallet.sendTransaction({ to, data, gas: BigInt(gas) });
    expect((await reader().waitForTransactionReceipt({ hash })).status).toBe("success");
    expect((await statusOf(lease)).status).toBe("closed");
    const nothing = await quick(["reclaim", lease, "--yes"], { ...environment(), ...gasKey });
    expect([nothing.code, nothing.out]).toEqual([0, expect.stringContaining("closed")]);
  });

  test("the consumer's wallet has back all that the job did not cost", async () => {
    ok(await rescue(["withdraw", "--yes", ...atEscrow()], { ...consumerKey(), ...gasKey }));
    expect((await market.ledger.balances()).consumer).toBe(usdcBefore - price);
  });
});

describe("what cannot be done is said, with what to do", () => {
  const withGas = () => ({ ...environment(), ...gasKey });

  test("a document for another chain, a lease that nobody funded, and a contract that is not there", async () => {
    const other = { ...z.encode(KeptIntent, kept()), chain_id: 10 };
    const wrong = await quick(["send", await file("other.json", JSON.stringify(other)), "--yes"], withGas());
    expect([wrong.code, wrong.err]).toEqual([
      1,
      expect.stringMatching(/serves chain 31337.*chain 10[\s\S]*wrong_chain/),
    ]);

    const terms = { ...settlement().terms, quote: `0x${"77".repeat(32)}` };
    const path = await file("terms.json", JSON.stringify(terms));
    const unknown = await quick(["reclaim", path, ...atEscrow(), "--yes"], withGas());
    expect([unknown.code, unknown.err]).toEqual([1, expect.stringContaining("unknown_lease")]);
    const status = await quick(["status", path, ...atEscrow()]);
    expect([status.code, status.err]).toEqual([1, expect.stringContaining("unknown_lease")]);
    const id = await quick(["status", `0x${"12".repeat(32)}`, ...atEscrow()]);
    expect([id.code, id.err]).toEqual([1, expect.stringContaining("unknown_lease")]);

    const nowhere = await quick(["status", path, "--escrow", stranger.address]);
    expect([nowhere.code, nowhere.err]).toEqual([1, expect.stringContaining("There is no contract")]);
    const unnamed = await quick(["status", path]);
    expect([unnamed.code, unnamed.err]).toEqual([2, expect.stringContaining("--escrow")]);
  });

  test("garbage, a missing file, no node, a node that is none", async () => {
    for (const [text, says] of [
      ["{", "is not JSON"],
      ["", "is empty"],
      ['{"kind":"settle"}', "terms"],
      ['{"kind":"sell"}', "kind"],
      ["[1]", "no JSON object"],
    ] as const) {
      const { code, err } = await quick(["send", await file("garbage.json", text), "--yes"], withGas());
      expect([code, err]).toEqual([2, expect.stringContaining(says)]);
    }
    expect((await quick(["send", join(folder, "nowhere.json")])).code).toBe(2);
    const noNode = await quick(["withdraw", stranger.address], { GPUX_CONFIG_DIR: folder });
    expect([noNode.code, noNode.err]).toEqual([2, expect.stringContaining("--rpc")]);
    const dead = await quick(["withdraw", stranger.address, "--rpc", "http://127.0.0.1:9"]);
    expect([dead.code, dead.err]).toEqual([1, expect.stringContaining("code: rpc")]);
  });

  test("another's wallet, no gas, and nobody to ask", async () => {
    const stolen = await quick(["exit", lease, "--yes"], { ...environment(), GPUX_PRIVATE_KEY: strangerKey });
    expect([stolen.code, stolen.err]).toEqual([3, expect.stringContaining("may not end this lease")]);
    const fee = devnetAccount("feeRecipient").address;
    const withoutGas = await quick(["withdraw", fee, "--yes", ...atEscrow()], {
      ...environment(),
      ...consumerKey(),
    });
    expect([withoutGas.code, withoutGas.err]).toEqual([
      4,
      expect.stringMatching(/holds 0 ETH[\s\S]*--gas-wallet[\s\S]*no_gas/),
    ]);
    const unasked = await quick(["withdraw", fee, ...atEscrow()], withGas());
    expect([unasked.code, unasked.err]).toEqual([2, expect.stringContaining("--yes")]);
    const owed = await reader().readContract({
      address: market.devnet.escrow,
      abi: leaseEscrowAbi,
      functionName: "owed",
      args: [fee],
    });
    expect(owed, "nothing was sent").toBeGreaterThan(0n);
  });
});
