import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import { AllocateIntent } from "@gpux/protocol/intent";
import { recoverSigner } from "@gpux/protocol/signature";
import { privateKeyToAccount } from "viem/accounts";
import { describe, expect, test, vi } from "vitest";
import { newP256Key } from "../../test/setup/p256-key.ts";
import { address, done } from "./testing/fixtures.ts";
import { meetNeighbours, neighbours } from "./testing/neighbours.ts";
import { CONSUMER, consumer, hasher, quoted } from "./testing/open-lease.ts";

const STRANGER = address(0x99);

meetNeighbours();

const unsigned = () => ({
  amount: 1n,
  salt: `0x${"01".repeat(32)}` as const,
  valid_after: 0,
  valid_before: Math.floor(Date.now() / 1_000) + 600,
  signature: "0x00" as const,
});

test("LSE-2 a quote that lapses while its node is asked to reserve is not funded, and the payer is told", async () => {
  const { stub } = await quoted({ expiresAt: Date.now() + 50 });
  neighbours.reserving = true;
  const funding = stub.fund(unsigned());
  await expect.poll(() => stub.view(CONSUMER)).toMatchObject({ ok: false, code: "lease_unknown" });
  neighbours.reserving = false;
  expect(await funding).toEqual({ ok: false, code: "quote_expired" });
});

test("a duty whose neighbour is away is tried again, and done once it is back", async () => {
  const { stub } = await quoted();
  neighbours.broken = true;
  const broken = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const funding = stub.fund(unsigned());
  await expect.poll(() => broken).toHaveBeenCalledWith(expect.stringContaining("relay:fund"));
  neighbours.broken = false;
  neighbours.relayed.set("fund", {
    status: "rejected",
    key: null,
    code: "insufficient_balance",
    detail: "the payer holds 0",
  });
  expect(await funding).toEqual({ ok: false, code: "insufficient_funds", detail: "the payer holds 0" });
  broken.mockRestore();
});

describe("CRD-1 funding from credit", () => {
  /** Terms as a quote has them. */
  const market = { upfront: 60_000n, unattended: 0n };
  type Sign = (hash: Bytes32) => Promise<HexBytes>;
  const byConsumer: Sign = (hash) => consumer.sign({ hash });

  async function creditFor(hash: Bytes32, funded_to: bigint, sign: Sign = byConsumer) {
    const valid_before = Math.floor(Date.now() / 1_000) + 600;
    const message = { leaseIds: [hash], fundedTo: [funded_to], validBefore: valid_before };
    const signature = await sign(hasher.allocate(message));
    return { kind: "credit", funded_to, valid_before, signature } as const;
  }
  const landed = (hash: Bytes32, funded: bigint) =>
    done("allocate", {
      kind: "allocate",
      leases: [{ leaseId: hash, funded: funded.toString(), openedAt: Math.floor(Date.now() / 1_000) }],
      amount: funded.toString(),
    });

  test.each(["secp256k1", "P-256"])("opens by %s and the meter, and is raised", async (curve) => {
    const p256 = await newP256Key();
    const [signer, sign]: [Address, Sign] =
      curve === "P-256" ? [p256.address, p256.sign] : [CONSUMER, byConsumer];
    const { stub, hash } = await quoted({ terms: { consumerSigner: signer, ...market } });
    neighbours.relayed.set("allocate", landed(hash, 1_000_000n));
    expect(await stub.fund(await creditFor(hash, 1_000_000n, sign))).toMatchObject({
      ok: true,
      lease: { status: "active", funded: 1_000_000n, from_credit: true },
    });
    const intent = AllocateIntent.parse(neighbours.submitted.get("allocate"));
    const { fundedTo, validBefore, meterSignature } = intent;
    const digest = hasher.allocate({ leaseIds: [hash], fundedTo, validBefore });
    expect(await recoverSigner(digest, meterSignature)).toBe(env.METER_ADDRESS.toLowerCase());

    await evictDurableObject(stub);
    neighbours.relayed.set("allocate", landed(hash, 3_000_000n));
    const raise = await creditFor(hash, 3_000_000n, sign);
    expect(await stub.topUp(signer, raise)).toMatchObject({ ok: true, lease: { funded: 3_000_000n } });
    // A replay, and a target below it, change nothing.
    expect(await stub.topUp(signer, raise)).toMatchObject({ ok: true, lease: { funded: 3_000_000n } });
  });

  test("CRD-6 keeps raises that are the consumer's, over evictions, and lands the first when too little is left", async () => {
    const { stub, hash } = await quoted({ terms: market });
    neighbours.relayed.set("allocate", landed(hash, 1_000_000n));
    await stub.fund(await creditFor(hash, 1_000_000n));
    const raises = [await creditFor(hash, 2_000_000n), await creditFor(hash, 3_000_000n)];
    const forged = { ...(await creditFor(hash, 4_000_000n)), funded_to: 5_000_000n };
    const auto = { below: 1n, allocations: raises };
    expect(await stub.autoTopUp(STRANGER, auto)).toMatchObject({ code: "forbidden" });
    const mixed = { below: 1n, allocations: [...raises, forged] };
    expect(await stub.autoTopUp(CONSUMER, mixed)).toMatchObject({ code: "funding_invalid" });
    expect(await stub.autoTopUp(CONSUMER, auto)).toMatchObject({
      ok: true,
      lease: { auto_top_up: { below: 1n, targets: [2_000_000n, 3_000_000n] } },
    });
    await evictDurableObject(stub);
    neighbours.relayed.set("allocate", landed(hash, 2_000_000n));
    const again = await stub.autoTopUp(CONSUMER, { ...auto, below: 1_500_000n });
    expect(again).toMatchObject({ ok: true, lease: { auto_top_up: { targets: [3_000_000n] } } });
    await neighbours.quiet();
    expect(await stub.view(CONSUMER)).toMatchObject({ lease: { funded: 2_000_000n } });
  });

  test("takes no signature of another, or over another target, and holds nothing for it", async () => {
    const { stub, hash } = await quoted({ terms: market });
    const other = privateKeyToAccount(`0x${"44".repeat(32)}`);
    neighbours.asked.length = 0;
    const foreign = await creditFor(hash, 1_000_000n, (digest) => other.sign({ hash: digest }));
    const raised = { ...(await creditFor(hash, 1_000_000n)), funded_to: 2_000_000n };
    for (const funding of [foreign, raised])
      expect(await stub.fund(funding)).toMatchObject({ ok: false, code: "funding_invalid" });
    expect(await stub.fund(await creditFor(hash, 0n))).toMatchObject({ code: "funding_invalid" });
    expect(neighbours.asked).toEqual([]);
    expect(await stub.view(CONSUMER)).toMatchObject({ lease: { status: "quoted" } });
  });

  test("says that the credit does not hold as much, and so does a refusal of the meter's", async () => {
    const poor = await quoted({ terms: market });
    const detail = "InsufficientCredit(1, 1000000)";
    neighbours.relayed.set("allocate", {
      status: "rejected",
      key: null,
      code: "insufficient_credit",
      detail,
    });
    expect(await poor.stub.fund(await creditFor(poor.hash, 1_000_000n))).toEqual({
      ok: false,
      code: "insufficient_credit",
      detail,
    });
    // Terms that are due at once: no quote has them, and the meter pays none from credit.
    const { stub, hash } = await quoted();
    expect(await stub.fund(await creditFor(hash, 1_000_000n))).toMatchObject({
      ok: false,
      code: "funding_invalid",
      detail: expect.stringContaining("due at once"),
    });
  });
});

test("a quote that nobody funds gives its GPUs back and leaves nothing behind", async () => {
  const { stub } = await quoted({ expiresAt: Date.now() + 50 });
  await expect.poll(() => stub.view(CONSUMER)).toMatchObject({ ok: false, code: "lease_unknown" });
  const left = await runInDurableObject(stub, async (_, { storage }) => ({
    rows: storage.sql
      .exec(
        "SELECT (SELECT count(*) FROM lease) + (SELECT count(*) FROM jobs) + (SELECT count(*) FROM tail) AS n",
      )
      .one().n,
    alarm: await storage.getAlarm(),
  }));
  expect(left).toEqual({ rows: 0, alarm: null });
  expect(neighbours.asked).toContain("node:release");
});

/** A job whose answer its caller has, and whose rows a crash takes: nothing is written while timers stand still. */
