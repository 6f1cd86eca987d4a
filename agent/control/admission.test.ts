import type { LeaseTerms } from "@gpux/protocol/eip712";
import { Address } from "@gpux/protocol/ids";
import { describe, expect, test } from "vitest";
import { configWith, house, leaseOf, NODE, NOW_S, offer, termsWith } from "../fixtures.ts";
import { admitResources, admitTerms, type DeclineCode, type House } from "./admission.ts";
import { enterHold, type Hold, takenResources } from "./holds.ts";

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
    expect(ask("yieldable", {})).toMatchObject({ code: "tier_not_sold" });
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

describe("admission of resources", () => {
  const none = { gpus: 0, cpu: 0, memory_gb: 0 };

  test.each([
    { asked: { gpus: 1, cpu: 8, memory_gb: 16 }, taken: none, code: undefined },
    { asked: { gpus: 2, cpu: 0, memory_gb: 0 }, taken: none, code: "resources_short" },
    { asked: { gpus: 1, cpu: 9, memory_gb: 0 }, taken: none, code: "resources_short" },
    { asked: { gpus: 1, cpu: 0, memory_gb: 0 }, taken: { ...none, gpus: 1 }, code: "no_capacity" },
    { asked: { gpus: 1, cpu: 4, memory_gb: 0 }, taken: { ...none, cpu: 5 }, code: "no_capacity" },
    { asked: { gpus: 1, cpu: 0, memory_gb: 9 }, taken: { ...none, memory_gb: 8 }, code: "no_capacity" },
  ])("$asked beside $taken: $code", ({ asked, taken, code }) => {
    const admission = admitResources(offer, asked, taken);
    expect(admission.ok ? undefined : admission.code).toBe(code);
  });

  test("a hold takes until it expires, a served lease for as long as it lasts, and neither counts twice", () => {
    const terms = termsWith();
    const { id } = leaseOf(terms);
    const other = leaseOf(termsWith({ feeBps: 1 })).id;
    const hold: Hold = { lease: id, terms, resources, expiresAt: 1_000 };
    const holds = enterHold(new Map(), { is: "held", hold });
    expect(takenResources(holds, [], 999, other).gpus).toBe(1);
    expect(takenResources(holds, [], 1_000, other).gpus).toBe(0);
    expect(takenResources(holds, [], 999, id).gpus).toBe(0);
    expect(takenResources(holds, [{ id, resources }], 5_000, other).gpus).toBe(1);
    expect(takenResources(holds, [{ id, resources }], 999, other).gpus).toBe(1);
    expect(takenResources(enterHold(holds, { is: "released", lease: id }), [], 999, other).gpus).toBe(0);
  });
});
