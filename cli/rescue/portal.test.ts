import { addresses } from "@gpux/protocol/addresses";
import { decodeFunctionData } from "viem";
import { optimism, optimismSepolia } from "viem/chains";
import { expect, it } from "vitest";
import { UsageError } from "../outcome.ts";
import { portalAbi, portalCall } from "./portal.ts";

const to = `0x${"e5".repeat(20)}` as const;

it("knows the portals of the chains that it knows, as the rest of the field has them", () => {
  for (const { id, contracts } of [optimism, optimismSepolia]) {
    const [[l1, portal] = []] = Object.entries(contracts.portal);
    const call = portalCall({ to, data: "0x1234", gas: 100_000n }, id, undefined);
    expect([call.l1ChainId, call.to]).toEqual([Number(l1), portal?.address.toLowerCase()]);
    expect(addresses[id]?.l1).toEqual({ chainId: call.l1ChainId, portal: call.to });
  }
});

it("never asks for less gas than the portal takes", () => {
  const long = `0x${"ff".repeat(10_000)}` as const;
  for (const [data, gas, least] of [
    ["0x1234", 100_000n, 100_000n],
    [long, 100_000n, 21_000n + 400_000n],
  ] as const) {
    const call = portalCall({ to, data, gas }, 10, undefined);
    const { args } = decodeFunctionData({ abi: portalAbi, data: call.data });
    expect(args.slice(1, 4)).toEqual([0n, least, false]);
    expect(args[4]).toBe(data);
  }
});

it("asks for the portal of a chain that it does not know", () => {
  const call = { to, data: "0x", gas: 1n } as const;
  expect(() => portalCall(call, 31_337, undefined)).toThrow(UsageError);
  expect(portalCall(call, 31_337, to)).toMatchObject({ l1ChainId: null, to });
});
