import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { Address, Bytes32, leaseIdOf } from "@gpux/protocol/ids";
import { Intent, intentKey, type RelayerRpc } from "@gpux/protocol/intent";
import { generatePrivateKey, privateKeyToAccount, privateKeyToAddress } from "viem/accounts";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { revokeOf } from "../../test/setup/devnet-credit.ts";
import { fundOf, hasher, newLease, settleOf } from "../../test/setup/devnet-lease.ts";
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

  test("is not taken while no node can be asked", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    const before = await rows();
    network.break("eth_call");
    expect(await codeOf(fund)).toBe("chain_unavailable");
    expect(await rows()).toEqual(before);
    network.fix();
    expect(await codeOf(fund)).toBe("done");
  });

  test("RLY-14 takes the place of no voucher that is held, unless it is as good", async () => {
    const lease = await newLease(1_000n);
    await relayer.submit(await fundOf([lease], [1_000n]));
    const voucher = await settleOf(lease, 700n);
    await relayer.hold(voucher);
    const { provider } = voucher.signatures;
    const worthless: Wire = { ...voucher, signatures: { provider, meter: provider } };
    expect(nameOf(worthless)).toBe(nameOf(voucher));
    expect(await codeOf(worthless)).toBe("bad_signature");
    network.break("eth_call");
    expect(await codeOf(worthless)).toBe("chain_unavailable");
    network.fix();
    expect(await relayer.status(nameOf(voucher))).toMatchObject({ status: "pending", txHash: null });
    expect(await relayer.relay(voucher)).toMatchObject({ status: "done", result: { paid: "700" } });
  });

  test("RLY-14 lands usage without the consumer's allowance as what it is, and leaves room for the whole", async () => {
    const lease = await newLease(1_000n, { unattended: 10n });
    await relayer.submit(await fundOf([lease], [1_000n]));
    const stripped = await settleOf(lease, 70n);
    const signature = await lease.consumer.sign({
      hash: hasher.allowance({ leaseId: lease.id, cumulative: 70n }),
    });
    const whole: Wire = { ...stripped, allowance: { cumulative: "70", signature } };
    expect(await relayer.relay(stripped)).toMatchObject({ status: "done", result: { paid: "10" } });
    expect(await relayer.relay(whole)).toMatchObject({ status: "done", result: { paid: "70" } });
  });

  test("RLY-16 pays the rest of a voucher that the funding held back, when it comes again after a top-up", async () => {
    const lease = await newLease(1_000n);
    await relayer.submit(await fundOf([lease], [500n]));
    const voucher = await settleOf(lease, 700n);
    const part = await relayer.relay(voucher);
    expect(part).toMatchObject({ status: "done", result: { paid: "500" } });
    const same = { ...part, confirmation: expect.any(String) };
    for (const again of [relayer.relay(voucher), relayer.submit(voucher)]) expect(await again).toEqual(same);
    network.break("eth_call");
    for (const again of [relayer.relay(voucher), relayer.submit(voucher)]) expect(await again).toEqual(same);
    network.fix();
    const { provider } = voucher.signatures;
    const forged: Wire = { ...voucher, signatures: { provider, meter: provider } };
    await relayer.submit(await fundOf([lease], [200n]));
    expect(await relayer.relay(forged)).toEqual(same);
    const [rest] = await Promise.all([relayer.relay(voucher), relayer.submit(voucher)]);
    expect(rest).toMatchObject({ status: "done", superseded: false, result: { paid: "700" } });
    expect(await relayer.submit(voucher)).toMatchObject({ txHash: rest.status === "done" && rest.txHash });
  });

  test("RLY-14 pays nobody under a lease's own name, which would pass for its payout", async () => {
    const lease = await newLease(0n);
    const account = lease.terms.provider;
    const occasion = leaseIdOf(lease.id);
    const answer = await relayer.relay({ kind: "withdraw", account, occasion });
    expect(answer).toMatchObject({ code: "intent_invalid", detail: expect.stringMatching(/lse_/) });
  });

  test("waits as long as it is told: not at all, or for its end", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    expect(await relayer.relay(fund, 0)).toMatchObject({ status: "pending" });
    const end = await relayer.status(nameOf(fund), 60_000);
    expect(end).toMatchObject({ status: "done", superseded: false });
    expect(await relayer.relay(fund, 60_000)).toEqual({ ...end, confirmation: expect.any(String) });
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
