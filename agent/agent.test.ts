import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { sha256Hex } from "@gpux/protocol/canonical";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { LeaseTerms as LeaseTermsWire, Receipt as ReceiptWire } from "@gpux/protocol/eip712";
import { CLOSE, FRAME_LIMIT } from "@gpux/protocol/frames";
import { recoverSigner } from "@gpux/protocol/signature";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { consumer, hasher, leaseOf, meter, NODE, place, textWith } from "./fixtures.ts";
import { heldVouchers } from "./leases/vouchers.ts";
import { statePaths } from "./state-dir.ts";
import {
  billOf,
  edge,
  entries,
  executor,
  folder,
  GPU,
  holding,
  IMAGE,
  lease,
  leaseHash,
  leaseOnline,
  online,
  opened,
  runFrame,
  running,
  setScene,
  soon,
  start,
  terms,
  wire,
} from "./testing/scene.ts";

setScene();

describe("a lease from hold to close", () => {
  test("the agent confirms, verifies on chain, works, uploads, signs what it did, and forgets", async () => {
    await start();
    const { control, hello } = await online();
    expect(hello).toMatchObject({
      provider: terms.provider,
      draining: false,
      leases: [],
      offer: { gpus: [{ model: GPU }] },
    });
    control.say(1, 0, {
      t: "hold",
      hold: lease,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      terms: wire(),
      text: textWith(),
      expires_at: soon(),
    });
    expect(await control.next("held")).toMatchObject({ hold: lease, seq: 1, ack: 0 });
    control.say(2, 1, { t: "open", lease, terms: wire() });
    const { socket } = await leaseOnline();

    const run = await runFrame(1);
    socket.say(1, 0, run);
    expect(await socket.next("started")).toMatchObject({ job: run.job, attempt: run.attempt, seq: 1 });
    expect(edge.chain.reads).toBeGreaterThan(0);
    await executor.started(1);
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    const sha256 = await sha256Hex(IMAGE);
    expect(result).toMatchObject({
      seq: 2,
      ack: 1,
      gpu: GPU,
      outputs: [{ name: "image", sha256, bytes: IMAGE.length }],
    });
    expect(Buffer.from(edge.objects.get(sha256) ?? [])).toEqual(Buffer.from(IMAGE));

    const { receipt, evidence } = await billOf(run.job, result.ms);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(2, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    const signed = await socket.next("signed");
    expect(signed.usage).toMatchObject({ cumulative: receipt.cumulative, evidence });
    const usageDigest = hasher.usage({ leaseId: leaseHash, cumulative: receipt.cumulative, evidence });
    expect(await recoverSigner(usageDigest, signed.usage.signature)).toBe(NODE);

    const validBefore = Math.floor(Date.now() / 1_000) + 600;
    socket.say(3, 3, { t: "close", ...usage, valid_before: validBefore });
    const close = await socket.next("close_signed");
    const closeDigest = hasher.close({
      leaseId: leaseHash,
      cumulative: receipt.cumulative,
      evidence,
      validBefore,
    });
    expect(await recoverSigner(closeDigest, close.signature)).toBe(NODE);
    socket.close(CLOSE.gone);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
  });

  test("LNK-7 it keeps the meter's signature, past the lease's end while the chain calls it open", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    await executor.started(1);
    executor.jobs[0]?.end();
    const { ms } = await socket.next("result");
    const { receipt, evidence } = await billOf(run.job, ms);
    const { cumulative } = receipt;
    const usage = { cumulative: cumulative.toString(), evidence };
    socket.say(2, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    await socket.next("signed");

    const hash = hasher.usage({ leaseId: leaseHash, cumulative, evidence });
    const genuine = await meter.sign({ hash });
    const held = async () => {
      const all = await heldVouchers(statePaths(folder), place);
      return all.map(({ id, kept }) => ({ id, ...kept.intent }));
    };
    // By another key, over more than was signed, and then the real one.
    socket.say(0, 2, { t: "voucher", ...usage, meter_signature: await consumer.sign({ hash }) });
    const more = { cumulative: cumulative + 1n, evidence };
    const overMore = await meter.sign({ hash: hasher.usage({ leaseId: leaseHash, ...more }) });
    socket.say(0, 2, {
      t: "voucher",
      cumulative: more.cumulative.toString(),
      evidence,
      meter_signature: overMore,
    });
    socket.say(0, 2, { t: "voucher", ...usage, meter_signature: genuine });
    await expect.poll(held).toHaveLength(1);
    expect(entries.filter((entry) => entry.event === "voucher.refused")).toHaveLength(2);
    const [voucher] = await held();
    expect(voucher).toMatchObject({ id: lease, kind: "settle", cumulative, signatures: { meter: genuine } });
    if (voucher?.kind !== "settle") throw new Error("no settlement");
    expect(await recoverSigner(hash, voucher.signatures.provider ?? "")).toBe(NODE);
    expect(voucher.allowance?.cumulative).toBe(500_000n);

    socket.close(CLOSE.gone);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
    expect(await held(), "the edge's word is not the chain's").toEqual([voucher]);

    // At its next start the chain says that the lease is closed: nothing can come of the voucher any more.
    await running[0]?.kill();
    edge.chain.status = "closed";
    await start();
    await expect.poll(held).toEqual([]);
  });

  test("a hold whose text is not what the terms commit to, or whose card another hold has, is declined", async () => {
    await start();
    const { control } = await online();
    const resources = { gpus: 1, cpu: 0, memory_gb: 0 };
    const ask = (seq: number, agreed: LeaseTerms, text = textWith()) =>
      control.say(seq, 0, {
        t: "hold",
        hold: leaseOf(agreed).id,
        resources,
        terms: z.encode(LeaseTermsWire, agreed),
        text,
        expires_at: soon(),
      });
    ask(1, terms, textWith({ region: "eu-west" }));
    expect((await control.next("declined")).reason).toMatch(/^text_mismatch/);
    ask(2, terms);
    await control.next("held");
    ask(3, { ...terms, feeBps: 1 });
    expect((await control.next("declined")).reason).toMatch(/^no_capacity/);
    control.say(4, 3, { t: "release", hold: lease });
    ask(5, { ...terms, feeBps: 2 });
    await control.next("held");
  });

  test("QTE-3 what was held is served at its price, whatever the owner asks since; below that nothing more is held", async () => {
    const cheap = await start();
    await holding();
    await cheap.kill();
    await start({ prices: { gpu_hour: "7.20" } });
    const { control } = await online();
    control.say(1, 0, { t: "open", lease, terms: wire() });
    const { socket } = await leaseOnline();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    expect(await socket.next("started")).toMatchObject({ job: run.job });
    const next = { ...terms, feeBps: 1 };
    control.say(2, 0, {
      t: "hold",
      hold: leaseOf(next).id,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      terms: z.encode(LeaseTermsWire, next),
      text: textWith(),
      expires_at: soon(),
    });
    expect((await control.next("declined")).reason).toMatch(/^price_too_low/);
  });

  test("a hold below the price is declined with the reason", async () => {
    await start({ prices: { gpu_hour: "3.61" } });
    const { control } = await online();
    control.say(1, 0, {
      t: "hold",
      hold: lease,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      terms: wire(),
      text: textWith(),
      expires_at: soon(),
    });
    expect((await control.next("declined")).reason).toMatch(/^price_too_low/);
  });

  test("a lease that the chain does not know as open is refused before any work", async () => {
    edge.chain.status = "exiting";
    await start();
    const { socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    expect(await socket.next("refused")).toMatchObject({
      what: "lease",
      reason: "on chain the lease is exiting",
    });
    expect(await socket.next("failed")).toMatchObject({ code: "terms_refused", ms: 0 });
    expect(executor.jobs).toEqual([]);
  });

  test.each([
    { why: "no allowance", change: { allowance: undefined }, detail: /allows 0.00 USDC/ },
    {
      why: "an allowance below what is committed",
      change: { committed: "500001" },
      detail: /allows 0.50 USDC/,
    },
    {
      why: "an allowance of another key",
      change: { allowance: { cumulative: "500000", signature: `0x${"11".repeat(65)}` as const } },
      detail: /not signed by the lease's consumer/,
    },
  ])("a job with $why is not begun", async ({ change, detail }) => {
    await start();
    const { socket } = await opened();
    socket.say(1, 0, { ...(await runFrame(1)), ...change });
    const failed = await socket.next("failed");
    expect(failed).toMatchObject({ code: "terms_refused", ms: 0 });
    expect(failed.detail).toMatch(detail);
    expect(executor.jobs).toEqual([]);
  });

  test("LNK-9 a job that succeeds at once tells its begin with its end", async () => {
    await start();
    const { socket } = await opened();
    // However long this takes, it takes no time.
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      socket.say(1, 0, await runFrame(1));
      await executor.started(1);
      executor.jobs[0]?.end();
      expect(await socket.next("result")).toMatchObject({ seq: 1 });
    } finally {
      vi.useRealTimers();
    }
  });

  test("a false bill is refused, and nothing is signed", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    const { receipt, evidence } = await billOf(run.job, result.ms + 5_000);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(2, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    expect(await socket.next("refused")).toMatchObject({ what: "settle" });
  });

  test("an unknown object fails the job as the platform's fault, a bad manifest as the tenant's", async () => {
    await start();
    const { socket } = await opened();
    socket.say(1, 0, { ...(await runFrame(1)), function: "ab".repeat(32) });
    expect(await socket.next("failed")).toMatchObject({ code: "object_unavailable", ms: 0 });
    const broken = await edge.putObject(new TextEncoder().encode("{"));
    socket.say(2, 1, { ...(await runFrame(2)), function: broken });
    expect(await socket.next("failed")).toMatchObject({ code: "manifest_invalid", ms: 0 });
  });

  test("MON-6 no job is begun while more was delivered than `max_unsecured` without the meter's signature", async () => {
    await start({ max_unsecured: "0" });
    const { socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    await executor.started(1);
    await socket.next("started");
    // A base unit a millisecond: by the clock that the agent measures with, something was delivered.
    const began = performance.now();
    while (performance.now() - began < 2) await new Promise((resolve) => setImmediate(resolve));
    executor.jobs[0]?.end();
    const { job, ms } = await socket.next("result");
    socket.say(2, 2, await runFrame(2, { committed: "200000" }));
    await expect.poll(() => entries.filter((entry) => entry.event === "job.held")).toHaveLength(1);
    expect(executor.jobs).toHaveLength(1);

    const { receipt, evidence } = await billOf(job, ms);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(3, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    await socket.next("signed");
    expect(executor.jobs).toHaveLength(1);
    const hash = hasher.usage({ leaseId: leaseHash, cumulative: receipt.cumulative, evidence });
    socket.say(0, 3, { t: "voucher", ...usage, meter_signature: await meter.sign({ hash }) });
    await executor.started(2);
  });

  test.each([
    ["through its lease, with its attempt and hash", null],
    ["into the store, where the lease does not take it", 404],
    ["into the store, where the lease breaks off", 500],
  ])("BLK-3 an output that no frame could hold is uploaded %s", async (_, refuseWith) => {
    await start();
    edge.refuseOutputsWith = refuseWith;
    const { socket } = await opened();
    const run = await runFrame(1, { attempt: { epoch: 3, n: 2 } });
    socket.say(1, 0, run);
    await executor.started(1);
    const bytes = new Uint8Array(FRAME_LIMIT + 1).fill(7);
    const outputs = [
      { name: "small", contentType: "text/plain", bytes: IMAGE },
      { name: "large", contentType: "image/png", bytes },
    ];
    await socket.next("started");
    executor.jobs[0]?.end({ ok: true, outputs, wallMs: 1, gpuMs: 1 });
    const result = await socket.next("result");
    const [small, large] = [await sha256Hex(IMAGE), await sha256Hex(bytes)];
    expect(result.outputs.map(({ sha256 }) => sha256)).toEqual([small, large]);
    const path = `/v1/agent/leases/${lease}/jobs/${run.job}/outputs/1?epoch=3&attempt=2&sha256=${large}`;
    expect(edge.outputs.has(path)).toBe(refuseWith === null);
    expect(edge.objects.has(large)).toBe(refuseWith !== null);
    expect(edge.objects.has(small)).toBe(true);
  });

  test("a cancel stops the executor and says so; a repeated run of a known attempt runs nothing", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    socket.say(2, 1, run);
    const { job, attempt } = run;
    socket.say(3, 1, { t: "cancel", job, attempt, reason: "test" });
    const stopped = await socket.next("stopped");
    expect(stopped).toMatchObject({ job });
    socket.say(4, stopped.seq, run);
    expect(await socket.next("stopped")).toMatchObject({ job, ms: stopped.ms });
    expect(executor.jobs.length).toBe(1);
  });
});
