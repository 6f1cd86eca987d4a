import { devnetAccount } from "@gpux/contracts/roles";
import { type Client, createClient, GpuxError, newP256Key, type Session } from "@gpux/sdk";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Market, openMarket, publish, smallProduct, sumOf, until } from "./testing/market.ts";

const MAX_PRICE = 1_000n;
const CAP = 16n * MAX_PRICE;

describe("sessions on the whole stack", () => {
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
  });
  afterAll(() => market?.stop());

  it("MON-7 lets a WebCrypto key that cannot be read out allow the spending, to the chain, without the wallet", async () => {
    const key = await newP256Key();
    let asked = 0;
    const { account } = devnetAccount("consumer");
    const signTypedData: typeof account.signTypedData = (data) => {
      asked += 1;
      return account.signTypedData(data);
    };
    const own = market.client({ account: { ...account, signTypedData }, consumer: key });
    await own.session({ cap: CAP, key });
    const first = await own.jobs.run({ function: matmul, inputs: smallProduct(8), max_price: MAX_PRICE });
    expect(first.status).toBe("succeeded");
    // The funding of the lease; its allowances are the key's.
    expect(asked).toBe(1);
    const opened = await own.leases.get(first.lease_id);
    expect(opened.terms.unattended).toBe(0n);
    expect(opened.terms.consumerSigner).not.toBe(opened.terms.payer);
    const socket = await own.leases.session(first.lease_id);
    const next = await socket.run({ function: matmul, inputs: smallProduct(9), max_price: MAX_PRICE });
    expect(next).toMatchObject({ status: "succeeded", lease_id: first.lease_id });
    await socket.close();
    expect(asked).toBe(1);
    await market.close(own, first.lease_id);
    const closed = await own.leases.get(first.lease_id);
    expect(closed.spent).toBe(first.price + next.price);
    expect(closed.spent).toBeGreaterThan(0n);
  });

  describe("on a lease that has the market's only GPU", () => {
    beforeAll(async () => {
      // The wallet opens the lease: a session with these scopes could not.
      const first = await client.jobs.run({
        function: matmul,
        inputs: smallProduct(1),
        max_price: MAX_PRICE,
      });
      lease = first.lease_id;
      session = await client.session({ cap: CAP });
      prompts = 0;
    });

    const run = (n: number) =>
      client.jobs.run({ function: matmul, inputs: smallProduct(n), max_price: MAX_PRICE, lease });
    const product = (n: number) => ({ function: matmul, inputs: smallProduct(n), max_price: MAX_PRICE });
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

    it("SOC-2 sends jobs and batches over a socket into the lease, and takes their results there", async () => {
      const socket = await client.leases.session(lease);
      const first = await socket.run(product(10));
      expect(first).toMatchObject({ status: "succeeded", lease_id: lease });
      const bytes = await client.jobs.output(first, 0);
      expect([...new Float32Array(bytes.buffer)]).toEqual([10, 20, 30, 40]);
      const batch = await socket.batch([product(11), product(12)]);
      expect(batch.map(({ status }) => status)).toEqual(["succeeded", "succeeded"]);
      await socket.close();
      expect(prompts).toBe(0);
    });

    it("BLK-1 brings an output that no frame could hold to who waits for it, and to storage", async () => {
      const [rows, columns] = [200, 128];
      const column = Float32Array.from({ length: rows }, (_, n) => n);
      const row = Float32Array.from({ length: columns }, (_, n) => n / 2);
      const inputs = {
        n: { number: rows },
        k: { number: 1 },
        m: { number: columns },
        a: { base64: Buffer.from(column.buffer).toString("base64") },
        b: { base64: Buffer.from(row.buffer).toString("base64") },
      };
      const expected = Float32Array.from({ length: rows * columns }, (_, n) =>
        Math.fround((column[Math.floor(n / columns)] ?? 0) * (row[n % columns] ?? 0)),
      );
      const socket = await client.leases.session(lease);
      const live = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
      const job = await socket.run(
        { function: matmul, inputs, max_price: MAX_PRICE },
        { onAccepted: ({ id }) => live.resolve(client.jobs.awaitOutput(id, 0)) },
      );
      await socket.close();
      // One that ended before it was on record was not accepted.
      live.resolve(client.jobs.awaitOutput(job.id, 0));
      expect(new Float32Array((await live.promise).buffer)).toEqual(expected);
      expect(await client.jobs.output(job, 0)).toEqual(await live.promise);
    });

    it("lives on when the edge is killed, its socket is dialled again, and no job of it runs twice", async () => {
      const socket = await client.leases.session(lease);
      const before = (await client.leases.get(lease)).jobs_ended;
      const begun = Array.from({ length: 8 }, (_, n) => socket.run(product(20 + n), { id: `crash-${n}` }));
      await begun[0];
      await market.crashEdge();
      const ended = await Promise.all(begun);
      expect(ended.map(({ status }) => status)).toEqual(begun.map(() => "succeeded"));
      // SOC-3: the same name over HTTP is the same job.
      const again = await client.jobs.create(
        { ...product(27), lease },
        { idempotencyKey: "crash-7", wait: 10 },
      );
      expect(again.id).toBe(ended[7]?.id);
      expect((await client.leases.get(lease)).jobs_ended).toBe(before + begun.length);
      await socket.close();

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
