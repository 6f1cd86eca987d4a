import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Address } from "@gpux/protocol/ids";
import { createPublicClient, createTestClient, createWalletClient, type Hex, http } from "viem";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deployEscrow, verifyEscrow } from "./deploy.ts";
import { type Devnet, startDevnet } from "./devnet.ts";
import { devnetChain } from "./devnet-client.ts";
import { DETERMINISTIC_DEPLOYER, DETERMINISTIC_DEPLOYER_CODE, escrowAddress } from "./escrow-code.ts";
import { verificationOf } from "./explorer.ts";
import { ESCROW_DELAYS, NETWORKS, type Network } from "./networks.ts";
import { devnetAccount } from "./roles.ts";
import { checkToken } from "./token-check.ts";

/** Answers decimals() with 18 and refuses all else. */
const EIGHTEEN_DECIMALS = "0x5f3560e01c63313ce56714601157" + "5f5ffd5b60125f5260205ff3";
/** Answers decimals() with 6 and all else with the string "x". */
const YES_TO_ALL =
  "0x5f3560e01c63313ce567146023576020 5f52 6001602052 607860f81b604052 60605ff3 5b60065f5260205ff3".replaceAll(
    " ",
    "",
  );
const OTHER = Address.parse(`0x${"0d".repeat(20)}`);

let devnet: Devnet;
beforeAll(async () => {
  devnet = await startDevnet({ host: "127.0.0.1" });
});
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
  test("refuses a chain without the deterministic deployer, or with another contract in its place", async () => {
    const { chain, wallet, cheat } = clients();
    for (const bytecode of ["0x", "0x5f5ff3"] as const) {
      await cheat.setCode({ address: DETERMINISTIC_DEPLOYER, bytecode });
      expect(await deployEscrow(chain, wallet, network())).toMatchObject({ ok: false, code: "no_deployer" });
    }
    await cheat.setCode({ address: DETERMINISTIC_DEPLOYER, bytecode: DETERMINISTIC_DEPLOYER_CODE });
  });

  test("refuses another chain than meant", async () => {
    const { chain, wallet } = clients();
    expect(await deployEscrow(chain, wallet, NETWORKS["op-mainnet"])).toMatchObject({
      ok: false,
      code: "wrong_chain",
    });
  });

  test("refuses an account that cannot pay the gas, before it sends", async () => {
    const { chain } = clients();
    const poor = createWalletClient({
      account: devnetAccount("consumer").account,
      chain: devnetChain(devnet.url, devnet.chainId),
      transport: http(devnet.url),
    });
    expect(await deployEscrow(chain, poor, network())).toMatchObject({ ok: false, code: "no_ether" });
  });

  test("lands at the address that follows from contract and token, once", async () => {
    const { chain, wallet } = clients();
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
    expect(escrowAddress(NETWORKS["op-mainnet"].token)).not.toBe(escrowAddress(NETWORKS["op-sepolia"].token));
  });

  test("says what to verify on an explorer", () => {
    const text = verificationOf(NETWORKS["op-mainnet"], "LeaseEscrow.standard.json");
    const escrow = escrowAddress(NETWORKS["op-mainnet"].token);
    expect(text).toContain(`https://optimistic.etherscan.io/verifyContract?a=${escrow}`);
    expect(text).toContain(
      `constructor arguments ${NETWORKS["op-mainnet"].token.slice(2).padStart(64, "0")}`,
    );
  });
});

describe("looking at what stands there", () => {
  test("tells the escrow from what is another contract, or one made with other immutables", async () => {
    const { chain, cheat } = clients();
    const address = escrowAddress(devnet.usdc);
    const code = (await chain.getCode({ address })) ?? "0x";
    expect(await verifyEscrow(chain, network())).toMatchObject({ ok: true });
    const lie = async (bytecode: Hex) => {
      await cheat.setCode({ address, bytecode });
      return await verifyEscrow(chain, network());
    };
    // One byte of its code; then the delays, each standing in the code as one immutable.
    const flipped: Hex = `0x${code.slice(2, -200)}${code.at(-200) === "0" ? "1" : "0"}${code.slice(-199)}`;
    expect(await lie(flipped)).toMatchObject({ ok: false, code: "other_code" });
    const word = (value: bigint) => value.toString(16).padStart(64, "0");
    const sooner: Hex = `0x${code.slice(2).replaceAll(word(ESCROW_DELAYS.exit), word(1n))}`;
    expect(sooner).not.toBe(code);
    expect(await lie(sooner)).toMatchObject({ ok: false, code: "other_code" });
    const elsewhere: Hex = `0x${code.slice(2).replaceAll(devnet.usdc.slice(2), OTHER.slice(2))}`;
    expect(elsewhere).not.toBe(code);
    expect(await lie(elsewhere)).toMatchObject({ ok: false, code: "other_code" });
    await cheat.setCode({ address, bytecode: code });
  });
});

describe("checking the token", () => {
  test("refuses USDC.e, and says why", async () => {
    const refusal = await checkToken(
      clients().chain,
      Address.parse("0x7F5c764cBc14f9669B88837ca1490cCa17c31607"),
    );
    expect(refusal).toMatchObject({ ok: false, code: "bridged_usdc" });
    expect(refusal.ok ? "" : refusal.detail).toMatch(/USDC\.e.*EIP-3009/);
  });

  test("refuses an address without code, and a contract that is no token", async () => {
    const { chain } = clients();
    expect(await checkToken(chain, OTHER)).toMatchObject({ ok: false, code: "not_a_token" });
    expect(await checkToken(chain, devnet.multicall3)).toMatchObject({
      ok: false,
      code: "not_a_token",
    });
  });

  test("refuses other decimals", async () => {
    const { chain, cheat } = clients();
    const code: Hex = `0x${EIGHTEEN_DECIMALS.slice(2)}`;
    await cheat.setCode({ address: OTHER, bytecode: code });
    expect(await checkToken(chain, OTHER)).toMatchObject({ ok: false, code: "unexpected_decimals" });
  });

  test("refuses a token without the bytes overload of EIP-3009", async () => {
    // USDC's double with the function's selector (0x88b7ab63) renamed, so that nothing answers to it.
    await placeUsdc(devnet.usdc, (code) => code.replaceAll("6388b7ab63", "6388b7ab62"));
    expect(await checkToken(clients().chain, devnet.usdc)).toMatchObject({
      ok: false,
      code: "no_eip3009",
    });
    await placeUsdc(devnet.usdc, (code) => code.replaceAll("6388b7ab62", "6388b7ab63"));
    expect(await checkToken(clients().chain, devnet.usdc)).toMatchObject({ ok: true });
  });

  test("refuses a token that asks for no signature", async () => {
    const { chain, cheat } = clients();
    await cheat.setCode({ address: OTHER, bytecode: `0x${YES_TO_ALL.slice(2)}` });
    expect(await checkToken(chain, OTHER)).toMatchObject({ ok: false, code: "ignores_signatures" });
  });
});
