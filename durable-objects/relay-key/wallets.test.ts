import { exports } from "cloudflare:workers";
import type { HexBytes } from "@gpux/protocol/ids";
import type { Intent, IntentDone, RelayerRpc } from "@gpux/protocol/intent";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { allocateOf, depositOf, releaseOf } from "../../test/setup/devnet-credit.ts";
import { type DevnetLease, fundOf, newLease, node, settleOf } from "../../test/setup/devnet-lease.ts";

const relayer = z.custom<RelayerRpc>((found) => found !== undefined).parse(Reflect.get(exports, "Relayer"));
type Wire = z.input<typeof Intent>;

beforeEach(() => {
  for (const level of ["log", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation(() => undefined);
});

async function done(wire: Wire): Promise<IntentDone> {
  const answer = await relayer.submit(wire);
  if (answer.status !== "done") throw new Error(JSON.stringify(answer));
  return answer;
}

/** The payer's account becomes a smart wallet whose every call does this. */
const becomes = (lease: DevnetLease, code: HexBytes) => node("hardhat_setCode", [lease.terms.payer, code]);
/** A signature that no key made; what it says is the wallet's to know. */
const WORD: HexBytes = `0x${"5a".repeat(200)}`;
const [YES, NO, REVERTS, BURNS, FLOODS] = [
  // The magic value of ERC-1271.
  "0x631626ba7e60e01b60005260206000f3",
  "0x600060005260206000f3",
  "0x60006000fd",
  "0x5b600056",
  // RETURN of 10,000,000 bytes.
  "0x629896806000f3",
] as const;

/** What asks for the payer's word, each with a lease or credit that stands ready for it. */
const asks: [title: string, make: (lease: DevnetLease) => Promise<() => Promise<Wire>>][] = [
  ["a funding", async (lease) => async () => ({ ...(await fundOf([lease], [10n])), signature: WORD })],
  ["a deposit", async (lease) => async () => ({ ...(await depositOf(lease, 10n)), signature: WORD })],
  [
    "an exit",
    async (lease) => {
      await done(await fundOf([lease], [10n]));
      const { terms } = await settleOf(lease, 1n);
      return async () => ({ kind: "exit", terms, signature: WORD });
    },
  ],
  [
    "a release",
    async (lease) => {
      await done(await depositOf(lease, 10n));
      return async () => ({ ...(await releaseOf(lease)), signature: WORD });
    },
  ],
];

describe.each(asks)("RLY-15 %s of a smart wallet", (_title, make) => {
  test("lands on its word, in a transaction of its own, while others share theirs", async () => {
    const [lease, ...others] = await Promise.all([1, 2, 3].map(() => newLease(1_000n)));
    if (lease === undefined) throw new Error("no lease");
    const ask = await make(lease);
    await becomes(lease, YES);
    const wires = [await ask(), ...(await Promise.all(others.map((other) => depositOf(other, 10n))))];
    const [own] = await Promise.all(wires.map(done));
    const carried = (await relayer.transactions()).find(({ hash }) => hash === own?.txHash);
    expect(carried?.intents).toEqual([own?.key]);
  });

  const hostile: [title: string, code: HexBytes][] = [
    ["says no", NO],
    ["reverts", REVERTS],
    ["burns all gas", BURNS],
    ["answers 10 MB", FLOODS],
  ];
  test.each(hostile)("that %s harms itself alone, and costs the relayer nothing", async (_why, code) => {
    const [lease, other] = await Promise.all([newLease(1_000n), newLease(1_000n)]);
    const ask = await make(lease);
    await becomes(lease, code);
    const before = (await relayer.transactions()).length;
    const [refused] = await Promise.all([relayer.submit(await ask()), done(await depositOf(other, 10n))]);
    expect(refused).toMatchObject({
      status: "rejected",
      code: expect.stringMatching(/^(bad_signature|token_refused)$/),
    });
    expect((await relayer.transactions()).length).toBe(before + 1);
  });
});

test("an allocation asks the spender's key, whatever code it has", async () => {
  const lease = await newLease(100n);
  await done(await depositOf(lease, 100n));
  await node("hardhat_setCode", [lease.terms.consumerSigner, REVERTS]);
  expect((await done(await allocateOf([lease], [50n]))).result).toMatchObject({ amount: "50" });
});
