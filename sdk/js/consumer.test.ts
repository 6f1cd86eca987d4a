import { consumerOf } from "@gpux/protocol/consumer-signature";
import { digest } from "@gpux/protocol/eip712";
import { toP256 } from "@gpux/protocol/p256";
import { describe, expect, it } from "vitest";
import { createClient } from "./client.ts";
import { accountConsumer, keyConsumer } from "./consumer.ts";
import { GpuxError } from "./error.ts";
import { newP256Key, newSessionKey } from "./session-key.ts";
import { consumer, domain, lower, meter, settlement } from "./testing/market.ts";

const leaseHash = `0x${"1e".repeat(32)}` as const;
const hashOf = (cumulative: bigint) => digest(domain, "Allowance", { leaseId: leaseHash, cumulative });

describe("who signs allowances", () => {
  it("is the account, or a key that nobody can read out: edge and agent know both by the terms", async () => {
    const key = await newP256Key();
    for (const by of [accountConsumer(consumer), keyConsumer(key)])
      for (let cumulative = 1n; cumulative <= 20n; cumulative += 1n) {
        const allowance = await by.allow(settlement, { leaseHash, cumulative });
        expect(allowance.cumulative).toBe(String(cumulative));
        expect(await consumerOf(hashOf(cumulative), allowance.signature)).toBe(by.address);
        expect(await consumerOf(hashOf(cumulative + 1n), allowance.signature)).not.toBe(by.address);
      }
    expect(accountConsumer(consumer).address).toBe(lower(consumer.address));
  });

  it("is sent with the lower s, which alone the contract takes", async () => {
    const by = keyConsumer(await newP256Key());
    for (let cumulative = 1n; cumulative <= 20n; cumulative += 1n) {
      const { signature } = await by.allow(settlement, { leaseHash, cumulative });
      expect(toP256(signature)?.s).toBe(`0x${signature.slice(66, 130)}`);
    }
  });

  it("cannot be a key that the contract does not verify, nor one beside another payer", async () => {
    const wrong = await newSessionKey();
    expect(wrong.publicJwk.kty).toBe("OKP");
    expect(() => keyConsumer(wrong)).toThrow(GpuxError);
    const url = "https://edge.test";
    const key = await newP256Key();
    expect(() => createClient({ url, account: consumer, payer: meter, consumer: key })).toThrow("no part");
  });
});
