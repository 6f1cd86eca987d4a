import { MAX_AMOUNT } from "@gpux/protocol/money";
import { Demand } from "@gpux/protocol/resources";
import { expect, it } from "vitest";
import { checkQuote, type Expected } from "./quote-check.ts";
import { consumer, quoteAt, wellKnown } from "./testing/market.ts";

const NOW = Date.parse("2026-11-22T12:00:00Z");
const OTHER = `0x${"0d".repeat(20)}` as const;
const expected: Expected = {
  wellKnown,
  payer: consumer.address,
  consumerSigner: consumer.address,
  demand: Demand.parse({}),
  mode: "serverless",
  durationS: 3_600,
  keepWarmS: 300,
  maxRatePerHour: 3_600_000n,
  now: NOW,
};
const seconds = NOW / 1_000;
const { settlement, text } = quoteAt(NOW);

it("passes a quote that is what was asked", () => {
  expect(checkQuote(quoteAt(NOW), expected)).toEqual({ ok: true });
});

it("MKT-10 passes a quote whose text promises what was asked, that its GPUs are verified", () => {
  const asked = { ...expected, demand: Demand.parse({ verified: true }) };
  expect(checkQuote(quoteAt(NOW, { text: { verified: true } }), asked)).toEqual({ ok: true });
});

const CHANGED: [field: string, change: Parameters<typeof quoteAt>[1]][] = [
  ["settlement.chain_id", { after: { settlement: { ...settlement, chain_id: 10 } } }],
  ["settlement.escrow", { after: { settlement: { ...settlement, escrow: OTHER } } }],
  ["settlement.token", { after: { settlement: { ...settlement, token: OTHER } } }],
  ["settlement.token_name", { after: { settlement: { ...settlement, token_name: "USDC" } } }],
  ["settlement.token_version", { after: { settlement: { ...settlement, token_version: "1" } } }],
  ["lease_hash", { after: { lease_hash: `0x${"12".repeat(32)}` } }],
  ["lease_hash", { after: { terms: { ...quoteAt(NOW).terms, provider: OTHER } } }],
  ["lease_hash", { after: { terms: { ...quoteAt(NOW).terms, upfront: 0n } } }],
  ["lease_id", { after: { lease_id: quoteAt(NOW, { terms: { provider: OTHER } }).lease_id } }],
  ["terms.quote", { after: { text: { ...text, region: "eu-west" } } }],
  ["terms.quote", { terms: { quote: `0x${"12".repeat(32)}` } }],
  ["terms.payer", { terms: { payer: OTHER } }],
  ["terms.consumerSigner", { terms: { consumerSigner: OTHER } }],
  ["terms.meter", { terms: { meter: OTHER } }],
  ["terms.feeRecipient", { terms: { feeRecipient: OTHER } }],
  ["terms.providerSigner", { terms: { providerSigner: OTHER } }],
  ["terms.feeBps", { terms: { feeBps: 501 } }],
  ["terms.unattended", { terms: { unattended: 1n } }],
  ["text.mode", { text: { mode: "dedicated" }, terms: { unattended: MAX_AMOUNT } }],
  ["terms.ratePerHour", { terms: { ratePerHour: 3_600_001n } }],
  [
    "terms.ratePerHour",
    { terms: { ratePerHour: 3_600_001n }, text: { prices: { ...text.prices, gpu_hour: "3600001" } } },
  ],
  ["text.prices", { text: { prices: { ...text.prices, gpu_hour: "free" } } }],
  ["text.resources", { text: { resources: { ...text.resources, gpus: 2 } } }],
  ["text.resources", { text: { resources: { ...text.resources, cpu: 1 } } }],
  ["text.resources", { text: { resources: { ...text.resources, memory_gb: 1 } } }],
  ["text.start_price", { text: { start_price: "600001" } }],
  ["text.tier", { text: { tier: "yieldable" } }],
  ["text.keep_warm_s", { text: { keep_warm_s: 0 } }],
  ["text.extendable_s", { text: { extendable_s: 3_600 }, terms: { expiry: seconds + 7_200 } }],
  ["expires_at", { after: { expires_at: new Date(NOW).toISOString() } }],
  ["terms.expiry", { terms: { expiry: seconds } }],
  ["terms.expiry", { terms: { expiry: seconds + 86_400 } }],
];

it.each(CHANGED)("refuses a quote with a changed %s", (field, change) => {
  expect(checkQuote(quoteAt(NOW, change), expected)).toMatchObject({ ok: false, field });
});

it.each([
  ["gpu_model", { gpu_model: "RTX_4090" }],
  ["vram", { min_vram_mb: 2_048 }],
  ["region", { region: "eu-west" }],
  ["node", { node: OTHER }],
  ["price", { max_rate_per_hour: "3599999" }],
  ["verified", { verified: true }],
])("refuses a quote whose text fails the demand's %s", (blocker, demand) => {
  const asked = { ...expected, demand: Demand.parse(demand) };
  expect(checkQuote(quoteAt(NOW), asked)).toMatchObject({
    ok: false,
    detail: expect.stringContaining(blocker),
  });
});

it.each([
  ["passes", {}, { ok: true }],
  ["refuses a serverless one for", { text: { mode: "serverless" as const } }, { field: "text.mode" }],
  ["refuses another ceiling of", { terms: { unattended: 0n } }, { field: "terms.unattended" }],
  ["refuses more than a minute upfront of", { terms: { upfront: 60_001n } }, { field: "terms.upfront" }],
  [
    "passes the start upfront of",
    { text: { start_price: "5000" }, terms: { upfront: 65_000n } },
    { ok: true },
  ],
  [
    "refuses more than start and minute upfront of",
    { text: { start_price: "5000" }, terms: { upfront: 65_001n } },
    { field: "terms.upfront" },
  ],
])("%s a dedicated quote", (_, change: Parameters<typeof quoteAt>[1], outcome) => {
  const quote = quoteAt(NOW, {
    text: { mode: "dedicated", ...change?.text },
    terms: { unattended: MAX_AMOUNT, ...change?.terms },
  });
  expect(checkQuote(quote, { ...expected, mode: "dedicated" })).toMatchObject(outcome);
});

it("passes terms that outlast the agreed end by as much as was asked for, and no more", () => {
  const quote = quoteAt(NOW, { text: { extendable_s: 3_600 }, terms: { expiry: seconds + 7_200 } });
  expect(checkQuote(quote, { ...expected, extendableS: 3_600 })).toEqual({ ok: true });
  const longer = quoteAt(NOW, { text: { extendable_s: 3_600 }, terms: { expiry: seconds + 7_400 } });
  expect(checkQuote(longer, { ...expected, extendableS: 3_600 })).toMatchObject({ field: "terms.expiry" });
});
