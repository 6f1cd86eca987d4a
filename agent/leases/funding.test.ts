import { Bytes32 } from "@gpux/protocol/ids";
import { expect, test } from "vitest";
import type { ChainLease, ChainView } from "./chain.ts";
import { createFunding } from "./funding.ts";

const LEASE = Bytes32.parse(`0x${"01".repeat(32)}`);
const open = (funded: bigint): ChainLease => ({ status: "open", funded });
const none: ChainLease = { status: "none", funded: 0n };

/** A chain that answers the views as told, and each one's last answer for ever. */
function fundingOver(answers: Record<ChainView, readonly ChainLease[]>) {
  const asked: ChainView[] = [];
  const signal = new AbortController().signal;
  const chain = {
    async lease(_: Bytes32, view: ChainView) {
      const before = asked.filter((each) => each === view).length;
      asked.push(view);
      return answers[view][before] ?? answers[view].at(-1) ?? none;
    },
  };
  const funding = createFunding({ chain, leaseId: LEASE, safeAbove: 50n, log: () => undefined, signal });
  return { funding, asked };
}

test("a small funding is worked for as soon as the newest block has it", async () => {
  const { funding, asked } = fundingOver({ latest: [none, open(50n)], safe: [] });
  expect(await funding.verified()).toBeNull();
  expect(asked).toEqual(["latest", "latest"]);
});

test("a large funding is worked for once a safe block has it", async () => {
  const { funding, asked } = fundingOver({ latest: [open(51n)], safe: [none, open(51n)] });
  expect(await funding.verified()).toBeNull();
  expect(asked).toEqual(["latest", "safe", "safe"]);
});

test("a lease that is over in a safe block is refused", async () => {
  const closed: ChainLease = { status: "closed", funded: 51n };
  const { funding } = fundingOver({ latest: [open(51n)], safe: [closed] });
  expect(await funding.verified()).toBe("on chain the lease is closed");
});
