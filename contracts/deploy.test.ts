import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Address } from "@gpux/protocol/ids";
import { createPublicClient, createTestClient, createWalletClient, type Hex, http } from "viem";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkToken, DETERMINISTIC_DEPLOYER, deployEscrow, escrowAddress, verificationOf } from "./deploy.ts";
import { type Devnet, startDevnet } from "./devnet.ts";
import { devnetChain } from "./devnet-client.ts";
import { ESCROW_DELAYS, NETWORKS, type Network } from "./networks.ts";
import { devnetAccount } from "./roles.ts";

/** The runtime code of the deterministic deployer (github.com/Arachnid/deterministic-deployment-proxy). */
const DEPLOYER_CODE =
  "0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";
/** Answers decimals() with 18 and refuses all else. */
const EIGHTEEN_DECIMALS = "0x5f3560e01c63313ce56714601157" + "5f5ffd5b60125f5260205ff3";
/** Answers decimals() with 6 and all else with the string "x". */
const YES_TO_ALL =
  "0x5f3560e01c63313ce567146023576020 5f52 6001602052 607860f81b604052 60605ff3 5b60065f5260205ff3".replaceAll(
    " ",
    "",
  );
const CALLER = devnetAccount("relayer").address;
const OTHER = Address.parse(`0x${"0d".repeat(20)}`);

let devnet: Devnet;
beforeAll(async () => {
  devnet = await startDevnet({ host: "127.0.0.1" });
}, 60_000);
afterAll(() => devnet.close());

function clients() {
  const chain = devnetChain(devnet.url, devnet.chainId);
  const transport = http(devnet.url);
  return {
    chain: createPublicClient({ transport, pollingInterval: 50, cacheTime: 0 }),
    wallet: createWalletClient({ chain, transport, account: devnetAccount("relayer").account }),
    cheat: createTestClient({ chain, transport, mode: "hardhat" }),
  };
}

const network = (token = devnet.usdc): Network => ({ name: "the devnet", chainId: devnet.chainId, token });

async function placeUsdc(at: Address, patch: (code: string) => string = (code) => code): Promise<void> {
  const { chain, cheat } = clients();
  const code = (await chain.getCode({ address: devnet.usdc })) ?? "0x";
  const patched = patch(code);
  await cheat.setCode({ address: at, bytecode: `0x${patched.slice(2)}` });
}

describe("deploying the escrow", () => {
  test("refuses a chain without the deterministic deployer, or another chain than meant", async () => {
    const { chain, wallet } = clients();
    expect(await deployEscrow(chain, wallet, network())).toMatchObject({ ok: false, code: "no_deployer" });
    expect(await deployEscrow(chain, wallet, NETWORKS.op)).toMatchObject({ ok: false, code: "wrong_chain" });
  });

  test("lands at the address that follows from contract and token, once", async () => {
    const { chain, wallet, cheat } = clients();
    await cheat.setCode({ address: DETERMINISTIC_DEPLOYER, bytecode: DEPLOYER_CODE });
    const first = await deployEscrow(chain, wallet, network());
    expect(first).toMatchObject({
      ok: true,
      escrow: escrowAddress(devnet.usdc),
      token: { name: "USD Coin", version: "2" },
    });
    const second = await deployEscrow(chain, wallet, network());
    expect(second).toMatchObject({ ok: true, escrow: escrowAddress(devnet.usdc), transaction: null });
    const read = { address: escrowAddress(devnet.usdc), abi: leaseEscrowAbi } as const;
    expect(Address.parse(await chain.readContract({ ...read, functionName: "token" }))).toBe(devnet.usdc);
    expect(await chain.readContract({ ...read, functionName: "EXIT_DELAY" })).toBe(ESCROW_DELAYS.exit);
    expect(await chain.readContract({ ...read, functionName: "MAX_TERM" })).toBe(ESCROW_DELAYS.maxTerm);
  });

  test("puts an escrow for another token elsewhere", () => {
    expect(escrowAddress(NETWORKS.op.token)).not.toBe(escrowAddress(NETWORKS["op-sepolia"].token));
  });

  test("says what to verify on an explorer", () => {
    const text = verificationOf(NETWORKS.op, { compiler: "0.8.37", runs: 10_000 });
    expect(text).toContain(
      `https://optimistic.etherscan.io/address/${escrowAddress(NETWORKS.op.token)}#code`,
    );
    expect(text).toContain(NETWORKS.op.token.slice(2));
  });
});

describe("checking the token", () => {
  test("refuses USDC.e, and says why", async () => {
    const refusal = await checkToken(
      clients().chain,
      Address.parse("0x7F5c764cBc14f9669B88837ca1490cCa17c31607"),
      CALLER,
    );
    expect(refusal).toMatchObject({ ok: false, code: "bridged_usdc" });
    expect(refusal.ok ? "" : refusal.detail).toMatch(/USDC\.e.*EIP-3009/);
  });

  test("refuses an address without code, and a contract that is no token", async () => {
    const { chain } = clients();
    expect(await checkToken(chain, OTHER, CALLER)).toMatchObject({ ok: false, code: "not_a_token" });
    expect(await checkToken(chain, devnet.multicall3, CALLER)).toMatchObject({
      ok: false,
      code: "not_a_token",
    });
  });

  test("refuses other decimals", async () => {
    const { chain, cheat } = clients();
    const code: Hex = `0x${EIGHTEEN_DECIMALS.slice(2)}`;
    await cheat.setCode({ address: OTHER, bytecode: code });
    expect(await checkToken(chain, OTHER, CALLER)).toMatchObject({ ok: false, code: "unexpected_decimals" });
  });

  test("refuses a token without the bytes overload of EIP-3009", async () => {
    // USDC's double with the function's selector (0x88b7ab63) renamed, so that nothing answers to it.
    await placeUsdc(devnet.usdc, (code) => code.replaceAll("6388b7ab63", "6388b7ab62"));
    expect(await checkToken(clients().chain, devnet.usdc, CALLER)).toMatchObject({
      ok: false,
      code: "no_eip3009",
    });
    await placeUsdc(devnet.usdc, (code) => code.replaceAll("6388b7ab62", "6388b7ab63"));
    expect(await checkToken(clients().chain, devnet.usdc, CALLER)).toMatchObject({ ok: true });
  });

  test("refuses a token that asks for no signature", async () => {
    const { chain, cheat } = clients();
    await cheat.setCode({ address: OTHER, bytecode: `0x${YES_TO_ALL.slice(2)}` });
    expect(await checkToken(chain, OTHER, CALLER)).toMatchObject({ ok: false, code: "ignores_signatures" });
  });
});
