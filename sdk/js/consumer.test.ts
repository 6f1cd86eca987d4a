import { consumerOf } from "@gpux/protocol/consumer-signature";
import { digest } from "@gpux/protocol/eip712";
import { toP256 } from "@gpux/protocol/p256";
import { describe, expect, it } from "vitest";
import { createClient } from "./client.ts";
import { keyConsumer } from "./consumer.ts";
import { GpuxError } from "./error.ts";
import { newP256Key, newSessionKey } from "./session-key.ts";
import { signAllowance } from "./spending.ts";
import { consumer, domain, meter, settlement } from "./testing/market.ts";

const leaseHash = `0x${"1e".repeat(32)}` as const;
const hashOf = (cumulative: bigint) => digest(domain, "Allowance", { leaseId: leaseHash, cumulative });

describe("who signs allowances", () => {
  it("may be a key that nobody can read out: edge and agent know it by the terms", async () => {
    const by = keyConsumer(await newP256Key());
    for (let cumulative = 1n; cumulative <= 20n; cumulative += 1n) {
      const { signature } = await signAllowance(by, settlement, { leaseHash, cumulative });
      expect(await consumerOf(hashOf(cumulative), signature)).toBe(by.address);
      expect(await consumerOf(hashOf(cumulative + 1n), signature)).not.toBe(by.address);
      // The lower s, which alone the contract takes.
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
