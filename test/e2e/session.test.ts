import { devnetAccount } from "@gpux/contracts/roles";
import { type Client, createClient, GpuxError, type Session } from "@gpux/sdk";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Market, openMarket, publish, smallProduct, sumOf, until } from "./testing/market.ts";

const MAX_PRICE = 1_000n;
const CAP = 16n * MAX_PRICE;

describe("a session on the whole stack", () => {
  let market: Market;
  let client: Client;
  let session: Session;
  let matmul: string;
  let lease: string;
  /** Requests that the wallet was asked to sign; allowances are typed data, and not counted. */
  let prompts = 0;

  beforeAll(async () => {
    market = await openMarket();
    const { account } = devnetAccount("consumer");
    const signMessage: typeof account.signMessage = (message) => {
      prompts += 1;
      return account.signMessage(message);
    };
    client = market.client({ account: { ...account, signMessage } });
    matmul = await publish(client, "matmul");
    // The wallet opens the lease: a session with these scopes could not.
    const first = await client.jobs.run({ function: matmul, inputs: smallProduct(1), max_price: MAX_PRICE });
    lease = first.lease_id;
    session = await client.session({ cap: CAP });
    prompts = 0;
  });
  afterAll(() => market?.stop());

  const run = (n: number) =>
    client.jobs.run({ function: matmul, inputs: smallProduct(n), max_price: MAX_PRICE, lease });
  const codeOf = (work: Promise<unknown>) =>
    work.then(
      () => "none",
      (error: unknown) => (error instanceof GpuxError ? error.code : String(error)),
    );

  it("runs jobs and reads their results without the wallet", async () => {
    for (const n of [2, 3]) {
      const job = await run(n);
      expect(job).toMatchObject({ status: "succeeded", lease_id: lease });
      const bytes = await client.jobs.output(job, 0);
      expect([...new Float32Array(bytes.buffer)]).toEqual([n, 2 * n, 3 * n, 4 * n]);
    }
    expect(prompts).toBe(0);
  });

  it("SOC-3 sends jobs over a socket that is dialled again when the edge is killed, each once", async () => {
    const socket = await client.leases.session(lease);
    const inputs = (n: number) => ({ function: matmul, inputs: smallProduct(n), max_price: MAX_PRICE });
    const first = await socket.run(inputs(10));
    expect(first).toMatchObject({ status: "succeeded", lease_id: lease });
    const bytes = await client.jobs.output(first, 0);
    expect([...new Float32Array(bytes.buffer)]).toEqual([10, 20, 30, 40]);
    expect((await socket.batch([inputs(11), inputs(12)])).map(({ status }) => status)).toEqual([
      "succeeded",
      "succeeded",
    ]);

    const begun = Array.from({ length: 8 }, (_, n) => socket.run(inputs(20 + n), { id: `crash-${n}` }));
    await begun[0];
    await market.crashEdge();
    const ended = await Promise.all(begun);
    expect(ended.map(({ status }) => status)).toEqual(begun.map(() => "succeeded"));
    // The same name over HTTP is the same job, however it was sent.
    const again = await client.jobs.create({ ...inputs(27), lease }, { idempotencyKey: "crash-7", wait: 10 });
    expect(again.id).toBe(ended[7]?.id);
    const view = await client.leases.get(lease);
    expect(view.jobs_ended).toBe(3 + 3 + begun.length);
    await socket.close();
    expect(prompts).toBe(0);
  });

  it("lives on when the edge is killed, and so does what it has used of its cap", async () => {
    await market.crashEdge();
    expect(await run(4)).toMatchObject({ status: "succeeded" });
    const tooMuch = { function: matmul, inputs: smallProduct(5), max_price: CAP, lease };
    expect(await codeOf(client.jobs.run(tooMuch))).toBe("session_cap_exceeded");
    const [view] = await client.sessions.list();
    expect(view).toMatchObject({ id: session.id, cap: CAP });
    expect(view?.reserved).toBeLessThanOrEqual(CAP);
    expect(prompts).toBe(0);
  });

  it("is over for all once it is revoked, also after another crash", async () => {
    const elsewhere = createClient({
      url: market.edge.url,
      account: devnetAccount("consumer").account,
      session,
    });
    expect(await elsewhere.sessions.close(session.id)).toMatchObject({ untold_leases: 0 });
    await market.crashEdge();
    expect(await codeOf(run(6))).toBe("session_revoked");
    // The wallet signs again.
    expect(await run(7)).toMatchObject({ status: "succeeded" });
    expect(prompts).toBeGreaterThan(0);
    await market.close(client, lease);
  });

  it("CRD-1 POOL-1 pays for jobs without a lease from credit: one prompt of the wallet, books equal to the base unit", async () => {
    const deposited = 2_000_000n;
    const { account: wallet } = devnetAccount("consumer");
    let signed = 0;
    const payer: typeof wallet = {
      ...wallet,
      signTypedData: (typedData) => {
        signed += 1;
        return wallet.signTypedData(typedData);
      },
    };
    // The key of an app: it holds no money, and asks nobody.
    const account = privateKeyToAccount(generatePrivateKey());
    const asApp = () => market.client({ account, payer });
    const before = await market.ledger.balances();
    const app = asApp();
    await app.credit.deposit(deposited);
    expect(await app.credit.balance()).toMatchObject({
      balance: deposited,
      spender: account.address.toLowerCase(),
    });

    const job = (n: number) => ({ function: matmul, inputs: smallProduct(n), max_price: 20_000n });
    const first = await app.jobs.run(job(1));
    // Another process with this key knows of no lease: its account leads it to the one that is open.
    const second = await asApp().jobs.run(job(2));
    expect([first.status, second.status]).toEqual(["succeeded", "succeeded"]);
    expect(second.lease_id).toBe(first.lease_id);

    const opened = await app.leases.get(first.lease_id);
    expect(opened).toMatchObject({ from_credit: true, status: "active" });
    await app.leases.topUp(opened.id, 100_000n, { payFrom: "credit" });
    await until(
      async () => (await app.leases.get(opened.id)).funded === opened.funded + 100_000n,
      "the top-up from credit has landed",
    );
    // Half as much again it takes by itself: less than `below` is left from the start.
    const limit = opened.funded + 150_000n;
    await app.leases.autoTopUp(opened.id, { below: limit, amount: 50_000n, limit });
    await until(
      async () => (await app.leases.get(opened.id)).funded === limit,
      "the raise that was signed in advance has landed",
    );
    expect((await app.credit.balance()).balance).toBe(deposited - limit);
    expect(signed).toBe(1);

    await market.close(app, opened.id);
    const prices = sumOf([first, second]);
    const after = await market.ledger.balances();
    expect({
      credit: (await app.credit.balance()).balance,
      wallet: after.consumer - before.consumer,
      earned: after.provider + after.fee_recipient - before.provider - before.fee_recipient,
      escrow: after.escrow - before.escrow,
    }).toEqual({
      credit: deposited - prices,
      wallet: -deposited,
      earned: prices,
      escrow: deposited - prices,
    });
  });
});
