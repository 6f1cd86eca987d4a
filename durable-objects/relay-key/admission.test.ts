import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { Address, Bytes32 } from "@gpux/protocol/ids";
import { Intent, intentKey, type RelayerRpc } from "@gpux/protocol/intent";
import { generatePrivateKey, privateKeyToAccount, privateKeyToAddress } from "viem/accounts";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { revokeOf } from "../../test/setup/devnet-credit.ts";
import { fundOf, hasher, newLease } from "../../test/setup/devnet-lease.ts";
import { fixNetwork, network } from "../../test/setup/faulty-network.ts";
import { RELAYER_KEY } from "../../test/setup/provided-context.ts";
import type { RelayKeyObject } from "./object.ts";

const relayer = z.custom<RelayerRpc>((found) => found !== undefined).parse(Reflect.get(exports, "Relayer"));
const namespace: DurableObjectNamespace<RelayKeyObject> = env.RELAY_KEY;
const key = namespace.getByName(Address.parse(privateKeyToAddress(RELAYER_KEY)));
type Wire = z.input<typeof Intent>;

afterEach(fixNetwork);
beforeEach(() => {
  for (const level of ["log", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation(() => undefined);
});

const nameOf = (wire: Wire) => intentKey(hasher, Intent.parse(wire));
const codeOf = async (wire: Wire) => {
  const answer = await relayer.relay(wire);
  return answer.status === "rejected" ? answer.code : answer.status;
};
const rows = () =>
  runInDurableObject(key, (_object, state) => {
    const count = (table: string) => state.storage.sql.exec(`SELECT COUNT(*) AS n FROM ${table}`).one().n;
    return [count("intents"), count("allowances")];
  });
/** As anybody can make it who knows an address. */
async function forged(of: Wire & { kind: "fund" }): Promise<Wire> {
  const stranger = privateKeyToAccount(generatePrivateKey());
  const hash = Bytes32.parse(generatePrivateKey());
  return { ...of, salt: Bytes32.parse(generatePrivateKey()), signature: await stranger.sign({ hash }) };
}

describe("RLY-11 what strangers bring", () => {
  test("uses up nobody's rate and no storage, where nobody signed it", async () => {
    const lease = await newLease(1_000n);
    const fund = await fundOf([lease], [10n]);
    const before = await rows();
    for (let i = 0; i < 6; i++) expect(await codeOf(await forged(fund))).toBe("bad_signature");
    expect(await rows()).toEqual(before);
    expect(await codeOf(fund)).toBe("done");
  });

  test("is not kept where it is refused at once, and lands once it is mended", async () => {
    const lease = await newLease(5n);
    const fund = await fundOf([lease], [10n]);
    expect(await relayer.relay(fund)).toMatchObject({ code: "insufficient_balance", key: nameOf(fund) });
    expect(await relayer.status(nameOf(fund))).toBeNull();
  });

  test("is not kept either where it is done already", async () => {
    const account = Address.parse(privateKeyToAddress(generatePrivateKey()));
    const before = await rows();
    const paid: Wire = { kind: "withdraw", account, occasion: "never" };
    expect(await relayer.relay(paid)).toMatchObject({
      status: "done",
      superseded: true,
      txHash: null,
      enough: true,
      result: { kind: "withdraw", account, amount: "0" },
    });
    expect(await rows()).toEqual(before);
  });

  test("goes on where no node can be asked: that is no verdict", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    network.break("eth_call");
    expect(await relayer.relay(fund, 0)).toMatchObject({ status: "pending", key: nameOf(fund) });
    network.fix();
    expect(await relayer.status(nameOf(fund), 20_000)).toMatchObject({ status: "done" });
  });

  test("waits as long as it is told: not at all, or for its end", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    expect(await relayer.relay(fund, 0)).toMatchObject({ status: "pending" });
    const end = await relayer.status(nameOf(fund), 20_000);
    expect(end).toMatchObject({ status: "done", superseded: false });
    expect(await relayer.relay(fund, 20_000)).toEqual({ ...end, confirmation: expect.any(String) });
  });

  test("shares one rate where keys cost nothing to make: revocations", async () => {
    const codes = [];
    for (let i = 0; i < 4; i++) codes.push(await codeOf(await revokeOf(await newLease(0n))));
    expect(codes).toEqual(["done", "done", "done", "rate_limited"]);
  });

  test("is looked at so often a minute, and then turned away, whoever brings it", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    let answer = await relayer.relay(await forged(fund));
    // The minute may turn once while it is tried.
    for (let i = 0; i < 90 && answer.status === "rejected" && answer.code === "bad_signature"; i++)
      answer = await relayer.relay(await forged(fund));
    expect(answer).toMatchObject({
      code: "rate_limited",
      detail: expect.stringMatching(/all accounts together/),
    });
  });
});
