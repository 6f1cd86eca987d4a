import type { Share } from "@gpux/protocol/capacity";
import { type LeaseTerms, LeaseTerms as LeaseTermsWire } from "@gpux/protocol/eip712";
import { Address, type LeaseId } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import type { Gpu } from "@gpux/protocol/resources";
import { describe, expect, test } from "vitest";
import {
  card,
  configWith,
  house,
  leaseOf,
  NODE,
  NOW_S,
  offer,
  quoteHash,
  termsWith,
  textWith,
} from "../fixtures.ts";
import { admitResources, admitTerms, admitText, type DeclineCode, type House } from "./admission.ts";
import { enterHold, type Hold, HoldEntry, type Holds, takenShares } from "./holds.ts";

const resources = { gpus: 1, cpu: 0, memory_gb: 0 };
const stranger = Address.parse(`0x${"99".repeat(20)}`);

function admit(terms: LeaseTerms, change: Partial<House> = {}, asked = resources) {
  return admitTerms({ ...house, ...change }, { lease: leaseOf(terms).id, terms, resources: asked }, NOW_S);
}

describe("admission of terms", () => {
  test("takes what it sells, to the base unit", () => {
    expect(admit(termsWith())).toEqual({ ok: true });
    expect(admit(termsWith({ ratePerHour: 3_640_000n }), {}, { ...resources, cpu: 4 })).toEqual({ ok: true });
  });

  test.each<{ code: DeclineCode; terms: Partial<LeaseTerms> }>([
    { code: "provider_mismatch", terms: { provider: stranger } },
    { code: "signer_mismatch", terms: { providerSigner: stranger } },
    { code: "shared_key", terms: { meter: NODE } },
    { code: "shared_key", terms: { consumerSigner: NODE } },
    { code: "shared_key", terms: { consumerSigner: termsWith().meter } },
    { code: "price_too_low", terms: { ratePerHour: 3_599_999n } },
    { code: "fee_too_high", terms: { feeBps: 1_001 } },
    { code: "expiry_too_soon", terms: { expiry: NOW_S + 59 } },
    { code: "expiry_too_late", terms: { expiry: NOW_S + 168 * 3_600 + 1 } },
  ])("declines $terms with $code", ({ code, terms }) => {
    expect(admit(termsWith(terms))).toMatchObject({ ok: false, code });
  });

  test("prices every resource that is held", () => {
    expect(admit(termsWith(), {}, { gpus: 1, cpu: 1, memory_gb: 0 })).toMatchObject({
      code: "price_too_low",
    });
    expect(admit(termsWith(), {}, { gpus: 2, cpu: 0, memory_gb: 0 })).toMatchObject({
      code: "price_too_low",
    });
  });

  test("takes a yieldable lease at the yieldable price, and only where that tier is sold", () => {
    const config = configWith({ yieldable_prices: { gpu_hour: "1.80" } });
    const terms = termsWith({ ratePerHour: 1_800_000n });
    const ask = (tier: "firm" | "yieldable", change: Partial<House> = { config }) =>
      admitTerms({ ...house, ...change }, { lease: leaseOf(terms).id, terms, resources, tier }, NOW_S);
    expect(ask("yieldable")).toEqual({ ok: true });
    expect(ask("firm")).toMatchObject({ code: "price_too_low" });
    expect(ask("yieldable", {})).toMatchObject({ code: "tier_unoffered" });
  });

  test("declines a meter that is not on the owner's list", () => {
    const config = configWith({ meters: [stranger] });
    expect(admit(termsWith(), { config })).toMatchObject({ code: "meter_unknown" });
    expect(admit(termsWith({ meter: stranger }), { config })).toEqual({ ok: true });
  });

  test("declines an id that is not the hash of the terms", () => {
    const { id } = leaseOf(termsWith());
    expect(admitTerms(house, { lease: id, terms: termsWith({ feeBps: 0 }), resources }, NOW_S)).toMatchObject(
      {
        code: "lease_mismatch",
      },
    );
  });
});

describe("admission of what is sold", () => {
  const sold = (change: Partial<QuoteText>, terms: Partial<LeaseTerms> = {}) => {
    const text = textWith(change);
    const agreed = termsWith({ quote: quoteHash(text), ...terms });
    return admitText(house, { lease: leaseOf(agreed).id, terms: agreed, resources }, text);
  };

  test("takes its own text, and a dedicated one that the clock alone makes it owed for", () => {
    expect(sold({})).toEqual({ ok: true });
    expect(sold({ mode: "dedicated" }, { unattended: MAX_AMOUNT })).toEqual({ ok: true });
  });

  test.each<{ code: DeclineCode; text: Partial<QuoteText>; terms?: Partial<LeaseTerms> }>([
    { code: "text_mismatch", text: {}, terms: { quote: `0x${"07".repeat(32)}` } },
    { code: "text_mismatch", text: { node: stranger } },
    { code: "text_mismatch", text: { resources: { gpus: 1, cpu: 1, memory_gb: 0 } } },
    { code: "text_mismatch", text: { gpus: [] } },
    { code: "text_mismatch", text: { concurrency: 2 } },
    { code: "tier_unoffered", text: { tier: "yieldable" } },
    { code: "mode_mismatch", text: { mode: "dedicated" } },
    { code: "mode_mismatch", text: { mode: "dedicated" }, terms: { unattended: MAX_AMOUNT - 1n } },
  ])("declines $text $terms with $code", ({ code, text, terms }) => {
    expect(sold(text, terms)).toMatchObject({ ok: false, code });
  });
});

test("MTR-12 a start is sold at the owner's price, under terms that let it be charged at once", () => {
  const config = configWith({ start_price: "0.05" });
  const ask = (start_price: string | undefined, upfront: bigint) => {
    const text = start_price === undefined ? textWith() : textWith({ start_price });
    const terms = termsWith({ quote: quoteHash(text), upfront });
    return admitText({ ...house, config }, { lease: leaseOf(terms).id, terms, resources }, text);
  };
  expect(ask("50000", 110_000n)).toEqual({ ok: true });
  expect(ask("50000", 50_000n)).toEqual({ ok: true });
  expect(ask("60000", 60_000n), "more is no reason").toEqual({ ok: true });
  for (const [start, upfront] of [
    [undefined, 110_000n],
    ["49999", 110_000n],
    ["50000", 49_999n],
  ] as const)
    expect(ask(start, upfront)).toMatchObject({ ok: false, code: "price_too_low" });
});

describe("admission of resources", () => {
  const other = { ...card, model: "RTX_4090" };
  const share = (gpus: Gpu[], cpu = 0, memory_gb = 0): Share => ({
    gpus,
    resources: { gpus: gpus.length, cpu, memory_gb },
  });
  const machine = { ...offer, gpus: [card, other] };

  test.each<{ what: string; asked: Share; taken: Share[]; code?: DeclineCode }>([
    { what: "all of it", asked: share([card, other], 8, 16), taken: [] },
    { what: "a card that it has not", asked: share([card, card]), taken: [], code: "resources_short" },
    { what: "more cores than it has", asked: share([card], 9), taken: [], code: "resources_short" },
    { what: "a card that is sold", asked: share([card]), taken: [share([card])], code: "no_capacity" },
    { what: "the other card", asked: share([other]), taken: [share([card])] },
    {
      what: "cores that are taken",
      asked: share([card], 4),
      taken: [share([other], 5)],
      code: "no_capacity",
    },
    {
      what: "memory that is taken",
      asked: share([card], 0, 9),
      taken: [share([other], 0, 8)],
      code: "no_capacity",
    },
  ])("$what: $code", ({ asked, taken, code }) => {
    const admission = admitResources(machine, asked, taken);
    expect(admission.ok ? undefined : admission.code).toBe(code);
  });

  test("a hold takes until it expires, a served lease for as long as it lasts, and neither counts twice", () => {
    const terms = termsWith();
    const { id } = leaseOf(terms);
    const other = leaseOf(termsWith({ feeBps: 1 })).id;
    const hold: Hold = { lease: id, terms, resources, gpus: [card], expiresAt: 1_000 };
    const holds = enterHold(new Map(), { is: "held", hold });
    const served = [{ id, isResting: false, ...share([card]) }];
    const resting = [{ id, isResting: true, ...share([card]) }];
    const taken = (...args: [Holds, typeof served, number, LeaseId]) => takenShares(...args).length;
    expect(taken(holds, [], 999, other)).toBe(1);
    expect(taken(holds, [], 1_000, other)).toBe(0);
    expect(taken(holds, [], 999, id)).toBe(0);
    expect(taken(holds, served, 5_000, other)).toBe(1);
    expect(taken(holds, served, 999, other)).toBe(1);
    expect(taken(holds, resting, 999, other)).toBe(0);
    expect(taken(enterHold(holds, { is: "released", lease: id }), [], 999, other)).toBe(0);
  });

  test("a journal of before the cards were named still loads, and its hold takes one", () => {
    const terms = termsWith();
    const { id } = leaseOf(terms);
    const line = {
      is: "held",
      hold: { lease: id, terms: LeaseTermsWire.encode(terms), resources, expiresAt: 1 },
    };
    const holds = enterHold(new Map(), HoldEntry.parse(line));
    const others = takenShares(holds, [], 0, leaseOf(termsWith({ feeBps: 1 })).id);
    expect(admitResources(machine, share([card, other]), others)).toMatchObject({ code: "no_capacity" });
  });
});
