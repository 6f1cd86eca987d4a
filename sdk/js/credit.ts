import type { WellKnown } from "@gpux/protocol/answers";
import { CreditView } from "@gpux/protocol/credit";
import { Address } from "@gpux/protocol/ids";
import type { Account } from "./account.ts";
import type { IntentDoneView, Intents } from "./intents.ts";
import { FUNDING_WINDOW_S } from "./lease-settings.ts";
import { signDeposit, signRelease } from "./spending.ts";
import type { Timing } from "./timing.ts";
import type { Transport } from "./transport.ts";

interface Following {
  /** Milliseconds to wait for the chain; without it, as long as it takes. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** The payer's USDC set aside for this client's account: leases open from it without the payer being asked again. */
export interface Credit {
  /**
   * Puts `amount` base units of the payer's into it, by one signature of the payer; resolves when they are on chain. What
   * leases do not use returns to it.
   */
  deposit(amount: bigint, options?: Following): Promise<IntentDoneView>;
  /** As it is on chain now. */
  balance(options?: { signal?: AbortSignal | undefined }): Promise<CreditView>;
  /**
   * Asks for all of it back, by this client's account. After the contract's delay (an hour; until then allocations still
   * land) {@link reclaim} completes it; `result.releaseAt` says when, in seconds.
   */
  release(options?: Following): Promise<IntentDoneView>;
  /** Completes the release that is due since `releaseAt` (seconds); the payer is owed the money, and paid. */
  reclaim(releaseAt: number, options?: Following): Promise<IntentDoneView>;
}

interface CreditSettings {
  readonly transport: Transport;
  readonly intents: Intents;
  readonly account: Account;
  readonly payer: Account;
  readonly timing: Timing;
  readonly wellKnown: () => Promise<WellKnown>;
}

export function createCredit(settings: CreditSettings): Credit {
  const { transport, intents, account, payer, timing, wellKnown } = settings;
  const owner = Address.parse(payer.address);
  const spender = Address.parse(account.address);
  const soon = () => Math.floor(timing.now() / 1_000) + FUNDING_WINDOW_S;

  return {
    async deposit(amount, options) {
      const { settlement, meter } = await wellKnown();
      const plan = { spender, meter, amount, validBefore: soon() };
      return intents.relay(await signDeposit(payer, settlement, plan), options);
    },
    balance: ({ signal } = {}) =>
      transport.json({ method: "GET", path: `/v1/credit?payer=${owner}`, signal }, CreditView),
    async release(options) {
      const { settlement, meter } = await wellKnown();
      const credit = { payer: owner, spender, meter, validBefore: soon() };
      const signature = await signRelease(account, settlement, credit);
      return intents.relay({ kind: "release", ...credit, signature }, options);
    },
    async reclaim(releaseAt, options) {
      const { meter } = await wellKnown();
      const done = await intents.relay(
        { kind: "reclaim_credit", payer: owner, spender, meter, releaseAt },
        options,
      );
      await intents.relay({ kind: "withdraw", account: owner, occasion: `credit_${releaseAt}` }, options);
      return done;
    },
  };
}
