import { evictDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import {
  AllocationRequest,
  type AttestRequest,
  AttestRequest as AttestWire,
  type MeterRpc,
} from "@gpux/protocol/attestation";
import { LeaseTerms, type Receipt } from "@gpux/protocol/eip712";
import { Address, Bytes32, type HexBytes } from "@gpux/protocol/ids";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import { placeOf } from "@gpux/protocol/place";
import { recoverSigner } from "@gpux/protocol/signature";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { newP256Key } from "../../test/setup/p256-key.ts";

// `exports` is typed as the edge's; here the main module is workers/meter.
const meter = z.custom<MeterRpc>((found) => found !== undefined).parse(Reflect.get(exports, "Meter"));
const hasher = createHasher(placeOf(env));
const consumer = privateKeyToAccount(generatePrivateKey());
const agent = Address.parse(privateKeyToAccount(generatePrivateKey()).address);
const nobody = () => Address.parse(privateKeyToAccount(generatePrivateKey()).address);
const seconds = () => Math.floor(Date.now() / 1000);

async function termsOf(change: Partial<LeaseTerms> = {}): Promise<LeaseTerms> {
  return {
    ...LeaseTerms.parse({
      payer: nobody(),
      consumerSigner: consumer.address,
      provider: nobody(),
      providerSigner: agent,
      meter: (await meter.info()).address,
      feeRecipient: nobody(),
      feeBps: 0,
      upfront: "1000",
      unattended: "100",
      ratePerHour: "3600",
      expiry: seconds() + 3600,
      quote: generatePrivateKey(),
    }),
    ...change,
  };
}

/** An honest lease's side: its receipts, and the requests that it would send. */
function bookOf(terms: LeaseTerms) {
  const leaseId = hasher.leaseTerms(terms);
  const receipts: Receipt[] = [];
  let frontier = emptyFrontier();
  return {
    leaseId,
    receipts,
    sell(price: bigint): Receipt {
      const receipt = {
        leaseId,
        job: Bytes32.parse(generatePrivateKey()),
        sequence: receipts.length + 1,
        attempt: 1,
        inputHash: Bytes32.parse(generatePrivateKey()),
        outputHashes: [Bytes32.parse(generatePrivateKey())],
        node: agent,
        gpu: "test",
        billedMs: 1n,
        price,
        cumulative: (receipts.at(-1)?.cumulative ?? 0n) + price,
        endedAt: seconds(),
      };
      receipts.push(receipt);
      frontier = append(frontier, hasher.receipt(receipt));
      return receipt;
    },
    request(change: Partial<AttestRequest> = {}) {
      const usage = { cumulative: receipts.at(-1)?.cumulative ?? 0n, evidence: root(frontier) };
      return z.encode(AttestWire, { terms, usage, receipts: [], ...change });
    },
  };
}

async function attested(request: Parameters<MeterRpc["attest"]>[0]) {
  const answer = await meter.attest(request);
  if (!answer.ok) throw new Error(`${answer.code}: ${answer.detail}`);
  return answer;
}

async function allowanceOf(leaseId: Bytes32, cumulative: bigint) {
  return { cumulative, signature: await consumer.sign({ hash: hasher.allowance({ leaseId, cumulative }) }) };
}

describe("MTR-5 the meter", () => {
  test("signs usage and close, with its own key", async () => {
    const terms = await termsOf();
    const book = bookOf(terms);
    const [first, second] = [book.sell(30n), book.sell(40n)];
    const { address } = await meter.info();
    const validBefore = seconds() + 600;
    const answer = await attested(book.request({ receipts: [first, second], close: { validBefore } }));

    const { cumulative, evidence } = AttestWire.parse(book.request()).usage;
    const usage = { leaseId: book.leaseId, cumulative, evidence };
    expect(answer.leaseId).toBe(book.leaseId);
    expect(await recoverSigner(hasher.usage(usage), answer.usageSignature)).toBe(address);
    expect(await recoverSigner(hasher.close({ ...usage, validBefore }), answer.closeSignature ?? "")).toBe(
      address,
    );
  });

  test("remembers over evictions: the same request, the same signatures; going back, none", async () => {
    const terms = await termsOf();
    const book = bookOf(terms);
    const stub = env.METER_LEASE.getByName(book.leaseId);
    expect(await meter.open({ terms: z.encode(LeaseTerms, terms), openedAt: seconds() })).toEqual({
      ok: true,
      leaseId: book.leaseId,
    });
    const earlier = book.request();
    for (let job = 0; job < 5; job++) {
      await evictDurableObject(stub);
      const now = book.request({ receipts: [book.sell(10n)] });
      const answer = await attested(now);
      await evictDurableObject(stub);
      expect(await attested(now)).toEqual(answer);
      await evictDurableObject(stub);
      expect(await meter.attest(earlier)).toMatchObject({ ok: false, code: "usage_decreased" });
    }
    await attested(book.request({ receipts: [...book.receipts] }));
  });

  test("requests at the same time cannot go apart", async () => {
    const terms = await termsOf();
    const one = bookOf(terms);
    const other = bookOf(terms);
    const answers = await Promise.all(
      [one, other].map((book) =>
        meter.attest(book.request({ receipts: [book.sell(10n)], ...usageOf(book) })),
      ),
    );
    expect(answers.filter((answer) => answer.ok)).toHaveLength(1);
  });

  function usageOf(book: ReturnType<typeof bookOf>) {
    return { usage: AttestWire.parse(book.request()).usage };
  }

  test("above unattended it needs the consumer's allowance, signed by the consumer for this lease", async () => {
    const terms = await termsOf();
    const book = bookOf(terms);
    const receipts = [book.sell(101n)];
    const { leaseId } = book;
    const stranger = privateKeyToAccount(generatePrivateKey());
    const hash = hasher.allowance({ leaseId, cumulative: 101n });
    const forged = { cumulative: 101n, signature: await stranger.sign({ hash }) };
    const inflated = { ...(await allowanceOf(leaseId, 101n)), cumulative: 500n };
    const foreign = await allowanceOf(hasher.leaseTerms(await termsOf()), 101n);
    expect(await meter.attest(book.request({ receipts }))).toMatchObject({ code: "above_allowance" });
    for (const allowance of [forged, inflated, foreign, { cumulative: 101n, signature: "0x" as const }]) {
      expect(await meter.attest(book.request({ receipts, allowance }))).toMatchObject({
        ok: false,
        code: "allowance_invalid",
      });
    }
    await attested(book.request({ receipts, allowance: await allowanceOf(leaseId, 101n) }));
  });

  test("takes the allowance of a consumer whose key is P-256", async () => {
    const browser = await newP256Key();
    const book = bookOf(await termsOf({ consumerSigner: browser.address }));
    const receipts = [book.sell(101n)];
    const digest = hasher.allowance({ leaseId: book.leaseId, cumulative: 101n });
    const forged = { cumulative: 101n, signature: await (await newP256Key()).sign(digest) };
    expect(await meter.attest(book.request({ receipts, allowance: forged }))).toMatchObject({
      code: "allowance_invalid",
    });
    await attested(
      book.request({ receipts, allowance: { cumulative: 101n, signature: await browser.sign(digest) } }),
    );
  });

  test("above what terms and time allow it does not sign, whatever the consumer allows", async () => {
    const terms = await termsOf();
    const book = bookOf(terms);
    const receipts = [book.sell(1_200n)];
    const allowance = await allowanceOf(book.leaseId, 1_000_000n);
    await meter.open({ terms: z.encode(LeaseTerms, terms), openedAt: seconds() });
    expect(await meter.attest(book.request({ receipts, allowance }))).toMatchObject({ code: "above_terms" });
  });

  test("after a close it signs nothing above it", async () => {
    const terms = await termsOf();
    const book = bookOf(terms);
    await attested(book.request({ close: { validBefore: seconds() + 60 } }));
    const receipts = [book.sell(1n)];
    expect(await meter.attest(book.request({ receipts }))).toMatchObject({ code: "lease_closed" });
  });

  test("terms of another meter, with a shared key, or changed by a hair are not its lease", async () => {
    const terms = await termsOf();
    const book = bookOf(terms);
    const receipts = [book.sell(1n)];
    const elsewhere = z.encode(LeaseTerms, { ...terms, meter: nobody() });
    expect(await meter.attest({ ...book.request({ receipts }), terms: elsewhere })).toMatchObject({
      code: "meter_mismatch",
    });
    expect(await meter.open({ terms: elsewhere, openedAt: 0 })).toMatchObject({ code: "meter_mismatch" });
    const shared = z.encode(LeaseTerms, { ...terms, consumerSigner: terms.providerSigner });
    expect(await meter.attest({ ...book.request({ receipts }), terms: shared })).toMatchObject({
      code: "terms_invalid",
    });
    const richer = z.encode(LeaseTerms, { ...terms, ratePerHour: 1_000_000_000n });
    expect(await meter.attest({ ...book.request({ receipts }), terms: richer })).toMatchObject({
      code: "receipt_mismatch",
    });
  });

  test("what does not fit the schema is refused", async () => {
    const request = bookOf(await termsOf()).request();
    for (const wrong of [
      { ...request, usage: { ...request.usage, cumulative: "-1" } },
      { ...request, usage: { ...request.usage, cumulative: "309485009821345068724781056" } },
      { ...request, receipts: undefined },
      { ...request, more: true },
      null,
    ]) {
      // @ts-expect-error -- a caller that does not keep to the type
      expect(await meter.attest(wrong)).toMatchObject({ ok: false, code: "request_invalid" });
    }
  });

  test("nothing but health is served over HTTP", async () => {
    expect((await exports.default.fetch("https://meter/healthz")).status).toBe(200);
    expect((await exports.default.fetch("https://meter/attest", { method: "POST" })).status).toBe(404);
  });
});

describe("CRD-2 the meter's half of an allocation", () => {
  // A start of ten minutes, which is the most, and the minute that every quote has.
  const market = { upfront: 660n, unattended: 0n } as const;

  async function requestOf(
    terms: readonly LeaseTerms[],
    fundedTo: readonly bigint[],
    sign: (hash: Bytes32) => Promise<HexBytes> = (hash) => consumer.sign({ hash }),
  ) {
    const validBefore = seconds() + 600;
    const leaseIds = terms.map((each) => hasher.leaseTerms(each));
    const hash = hasher.allocate({ leaseIds, fundedTo: [...fundedTo], validBefore });
    const request = { terms: [...terms], fundedTo: [...fundedTo], validBefore, signature: await sign(hash) };
    return { hash, wire: z.encode(AllocationRequest, request) };
  }

  test("is given for what the consumer signed, of several leases in one, again and again", async () => {
    const first = await termsOf(market);
    const second = await termsOf({ ...market, payer: first.payer });
    const { hash, wire } = await requestOf([first, second], [300n, 200n]);
    const answer = await meter.allocate(wire);
    if (!answer.ok) throw new Error(answer.detail);
    expect(await recoverSigner(hash, answer.signature)).toBe((await meter.info()).address);
    await evictDurableObject(env.METER_LEASE.getByName(hasher.leaseTerms(first)));
    expect(await meter.allocate(wire)).toEqual(answer);
  });

  test("is given to a P-256 key as well", async () => {
    const key = await newP256Key();
    const terms = await termsOf({ ...market, consumerSigner: key.address });
    const { wire } = await requestOf([terms], [300n], key.sign);
    expect(await meter.allocate(wire)).toMatchObject({ ok: true });
  });

  test("is refused for terms that no quote has, of another meter, or of two payers", async () => {
    const terms = await termsOf(market);
    const cases: [LeaseTerms[], string][] = [
      [[{ ...terms, upfront: 661n }], "terms_refused"],
      [[{ ...terms, upfront: MAX_AMOUNT, unattended: MAX_AMOUNT }], "terms_refused"],
      [[{ ...terms, unattended: 100n }], "terms_refused"],
      [[{ ...terms, expiry: seconds() + 90_000 }], "terms_refused"],
      [[{ ...terms, meter: nobody() }], "terms_refused"],
      [[{ ...terms, providerSigner: terms.consumerSigner }], "terms_refused"],
      [[terms, { ...terms, payer: nobody() }], "other_credit"],
      [[terms, { ...terms, consumerSigner: nobody() }], "other_credit"],
      [[terms, terms], "intent_invalid"],
    ];
    for (const [each, code] of cases) {
      const { wire } = await requestOf(
        each,
        each.map(() => 5n),
      );
      expect(await meter.allocate(wire)).toMatchObject({ ok: false, code });
    }
    // The clock alone bills a dedicated one.
    const { wire } = await requestOf([{ ...terms, unattended: MAX_AMOUNT }], [5n]);
    expect(await meter.allocate(wire)).toMatchObject({ ok: true });
  });

  test("is refused for a signature that is not the consumer's over these very targets", async () => {
    const terms = await termsOf(market);
    const { wire } = await requestOf([terms], [5n]);
    const stranger = privateKeyToAccount(generatePrivateKey());
    const foreign = await requestOf([terms], [5n], (hash) => stranger.sign({ hash }));
    for (const wrong of [
      { ...wire, fundedTo: ["6"] },
      { ...wire, validBefore: wire.validBefore + 1 },
      foreign.wire,
    ])
      expect(await meter.allocate(wrong)).toMatchObject({ ok: false, code: "bad_signature" });
    expect(await meter.allocate({ ...wire, fundedTo: [] })).toMatchObject({ code: "intent_invalid" });
    expect(await meter.allocate((await requestOf([terms], [0n])).wire)).toMatchObject({
      code: "intent_invalid",
    });
  });

  test("is refused for more once the lease's close is signed; what was promised before is not taken back", async () => {
    const terms = await termsOf(market);
    const book = bookOf(terms);
    const promised = (await requestOf([terms], [100n])).wire;
    expect(await meter.allocate(promised)).toMatchObject({ ok: true });
    await attested(book.request({ close: { validBefore: seconds() + 600 } }));
    expect(await meter.allocate(promised)).toMatchObject({ ok: true });
    expect(await meter.allocate((await requestOf([terms], [101n])).wire)).toMatchObject({
      ok: false,
      code: "lease_closed",
    });
  });
});
