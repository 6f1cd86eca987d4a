import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { authorizationDigest, LeaseTerms, TokenDomain } from "@gpux/protocol/eip712";
import { Address, Bytes32 } from "@gpux/protocol/ids";
import { Intent, IntentAnswer, RelayedTransaction } from "@gpux/protocol/intent";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { createPublicClient, http, parseEther } from "viem";
import { generatePrivateKey, type PrivateKeyAccount, privateKeyToAccount } from "viem/accounts";
import { z } from "zod";
import { type FaultyNode, startFaultyNode } from "./faulty-node.ts";

/**
 * Drives leases through the relayer, from funding to the last payout, while its node fails, the chain reorganises and
 * its workerd is killed; then holds the chain to every base unit and every wei.
 *
 *   node test/chaos/relayer-chaos.ts --leases 200 --kills 20 --seed 1
 */
export interface ChaosOptions {
  readonly leases: number;
  readonly kills: number;
  readonly seed: number;
  readonly say?: (line: string) => void;
}

export interface ChaosReport {
  readonly leases: number;
  readonly kills: number;
  readonly reorgs: number;
  readonly deepest: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly transactions: number;
  readonly intents: number;
  readonly wei: string;
  readonly seconds: number;
}

const FUNDED = 1_000_000n;
const SETTLED = 300_001n;
const CLOSED = 700_003n;
const FEE_BPS = 500;
const REORG_MAX = 10;
const POLICY = {
  safeDepth: 11,
  finalizedDepth: 12,
  rpcTimeoutMs: 1_000,
  replaceAfterMs: 1_500,
  settleWindowMs: 50,
  closeWindowMs: 50,
};

/** mulberry32: small, seeded, good enough to choose faults. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The relayer's process; calls wait while it is down. */
class RelayerProcess {
  readonly #options: string;
  #child: ChildProcess | undefined;
  #url: Promise<string>;

  constructor(storage: string, bindings: Record<string, unknown>) {
    this.#options = JSON.stringify({ storage, bindings });
    this.#url = this.#start();
  }

  async #start(): Promise<string> {
    const program = fileURLToPath(new URL("./relayer-process.ts", import.meta.url));
    // A group of its own, so that workerd dies with it.
    const child = spawn(process.execPath, [program, this.#options], {
      // The open pipe tells the child that we live.
      stdio: ["pipe", "pipe", "inherit"],
      detached: true,
    });
    this.#child = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const ready = z.looseObject({ url: z.string() }).safeParse(parseJson(line));
      if (ready.success) return ready.data.url;
    }
    throw new Error("the relayer ended before it was ready");
  }

  async ready(): Promise<void> {
    await this.#url;
  }

  async call(method: string, ...args: unknown[]): Promise<unknown> {
    for (;;) {
      try {
        const body = JSON.stringify({ method, args });
        const response = await fetch(await this.#url, { method: "POST", body });
        if (response.ok) return await response.json();
      } catch {
        // it was killed under us
      }
      await pause(100);
    }
  }

  kill(): void {
    if (this.#child?.pid !== undefined) process.kill(-this.#child.pid, "SIGKILL");
  }

  async restart(): Promise<void> {
    this.kill();
    this.#url = this.#start();
    await this.#url;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

interface Party {
  readonly terms: LeaseTerms;
  /** What the relayer is to land, in stages; those of one stage at the same time. */
  readonly stages: readonly (readonly z.input<typeof Intent>[])[];
}

const account = () => privateKeyToAccount(generatePrivateKey());
const addressOf = (of: PrivateKeyAccount) => Address.parse(of.address);

/** A lease of fresh parties, and everything they will ever sign for it. */
async function partyOf(devnet: Devnet): Promise<Party> {
  const hasher = createHasher({ chainId: devnet.chainId, escrow: devnet.escrow });
  const [payer, consumer, provider, meter] = [account(), account(), account(), account()];
  const terms = LeaseTerms.parse({
    payer: payer.address,
    consumerSigner: consumer.address,
    provider: addressOf(account()),
    providerSigner: provider.address,
    meter: meter.address,
    feeRecipient: addressOf(account()),
    feeBps: FEE_BPS,
    upfront: FUNDED.toString(),
    unattended: FUNDED.toString(),
    ratePerHour: "3600",
    // The chain's clock runs ahead by a second with every reorganisation.
    expiry: Math.floor(Date.now() / 1000) + 36_000,
    quote: generatePrivateKey(),
  });
  const leaseId = hasher.leaseTerms(terms);
  const salt = Bytes32.parse(generatePrivateKey());
  const evidence = Bytes32.parse(generatePrivateKey());
  const domain = TokenDomain.parse({
    name: "USD Coin",
    version: "2",
    chainId: devnet.chainId,
    verifyingContract: devnet.usdc,
  });
  const validBefore = terms.expiry;
  const funding = authorizationDigest(domain, {
    from: terms.payer,
    to: devnet.escrow,
    value: FUNDED,
    validAfter: 0n,
    validBefore: BigInt(validBefore),
    nonce: hasher.fundingNonce({ leaseIds: [leaseId], amounts: [FUNDED], salt }),
  });
  const usage = hasher.usage({ leaseId, cumulative: SETTLED, evidence });
  const close = hasher.close({ leaseId, cumulative: CLOSED, evidence, validBefore });
  const intents: readonly (readonly Intent[])[] = [
    [
      {
        kind: "fund",
        from: terms.payer,
        terms: [terms],
        amounts: [FUNDED],
        salt,
        validAfter: 0,
        validBefore,
        signature: await payer.sign({ hash: funding }),
      },
    ],
    [
      {
        kind: "settle",
        terms,
        cumulative: SETTLED,
        evidence,
        signatures: {
          provider: await provider.sign({ hash: usage }),
          meter: await meter.sign({ hash: usage }),
        },
      },
    ],
    [
      {
        kind: "close",
        terms,
        cumulative: CLOSED,
        evidence,
        validBefore,
        signatures: {
          consumer: await consumer.sign({ hash: close }),
          provider: await provider.sign({ hash: close }),
        },
      },
    ],
    [terms.provider, terms.feeRecipient, terms.payer].map((of) => ({
      kind: "withdraw",
      account: of,
      occasion: leaseId,
    })),
  ];
  return { terms, stages: intents.map((stage) => stage.map((intent) => z.encode(Intent, intent))) };
}

/** Asks until it is done at the hardness told. */
async function drive(relayer: RelayerProcess, wire: z.input<typeof Intent>, final: boolean): Promise<void> {
  for (;;) {
    const answer = IntentAnswer.parse(await relayer.call("submit", wire));
    if (answer.status === "done" && (!final || answer.confirmation === "finalized")) return;
    await pause(final ? 500 : 50);
  }
}

/** Replaces up to ten blocks again and again, until told to stop. */
async function reorganise(devnet: Devnet, random: () => number, stopped: () => boolean) {
  const client = createPublicClient({ transport: http(devnet.url), cacheTime: 0 });
  let [count, deepest] = [0, 0];
  while (!stopped()) {
    // Optimism has not had one in years; here they come every few seconds, so that something lands between them.
    for (let rest = 2_000 + random() * 4_000; rest > 0 && !stopped(); rest -= 100) await pause(100);
    const from = await devnet.snapshot();
    const depth = 1 + Math.floor(random() * REORG_MAX);
    for (let waited = 0; waited < 20 && !stopped(); waited++) {
      if (Number((await client.getBlockNumber()) - from.blockNumber) >= depth) break;
      await pause(100);
    }
    const height = Number((await client.getBlockNumber()) - from.blockNumber);
    if (height < 1 || height > REORG_MAX || stopped()) continue;
    await devnet.reorg(from);
    count += 1;
    deepest = Math.max(deepest, height);
  }
  return { count, deepest };
}

function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** Every base unit and every wei. */
async function audit(
  devnet: Devnet,
  parties: readonly Party[],
  keys: readonly Address[],
  wei: bigint,
  all: RelayedTransaction[],
) {
  const client = createPublicClient({ transport: http(devnet.url), cacheTime: 0 });
  const hasher = createHasher({ chainId: devnet.chainId, escrow: devnet.escrow });
  const escrow = { address: devnet.escrow, abi: leaseEscrowAbi } as const;
  const held = (of: Address) =>
    client.readContract({ address: devnet.usdc, abi: usdcAbi, functionName: "balanceOf", args: [of] });
  const fee = (CLOSED * BigInt(FEE_BPS)) / 10_000n;
  for (const { terms } of parties) {
    const id = hasher.leaseTerms(terms);
    const [funded, paid, , , status] = await client.readContract({
      ...escrow,
      functionName: "leases",
      args: [id],
    });
    must(funded === FUNDED && paid === CLOSED && status === 4, `${id}: ${funded} ${paid} ${status}`);
    const balances = await Promise.all([terms.provider, terms.feeRecipient, terms.payer].map(held));
    const expected = [CLOSED - fee, fee, FUNDED - CLOSED];
    must(balances.join() === expected.join(), `${id}: ${balances} where ${expected} was due`);
  }
  must((await held(devnet.escrow)) === 0n, "the escrow keeps money that is nobody's");

  const receipts = await Promise.all(
    all.map(({ hash }) => client.request({ method: "eth_getTransactionReceipt", params: [hash] })),
  );
  const Fees = z.looseObject({ gasUsed: z.string(), effectiveGasPrice: z.string(), l1Fee: z.string() });
  const spent = receipts.reduce((sum, receipt) => {
    const { gasUsed, effectiveGasPrice, l1Fee } = Fees.parse(receipt);
    return sum + BigInt(gasUsed) * BigInt(effectiveGasPrice) + BigInt(l1Fee);
  }, 0n);
  const recorded = all.reduce(
    (sum, { cost }) => sum + BigInt(cost.gasUsed) * BigInt(cost.effectiveGasPrice) + BigInt(cost.l1Fee),
    0n,
  );
  const left = (await Promise.all(keys.map((address) => client.getBalance({ address })))).reduce(
    (a, b) => a + b,
  );
  must(recorded === spent, `on record are ${recorded} wei, the receipts say ${spent}`);
  must(wei - left === spent, `${wei - left} wei are gone, the receipts say ${spent}`);
  return spent;
}

async function transactionsOf(relayer: RelayerProcess): Promise<RelayedTransaction[]> {
  const all = new Map<string, RelayedTransaction>();
  for (let since = 0; ; ) {
    const page = z.array(RelayedTransaction).parse(await relayer.call("transactions", since));
    for (const each of page) all.set(each.hash, each);
    const last = page.at(-1);
    if (last === undefined || last.blockNumber === since || page.length < 1_000) return [...all.values()];
    since = last.blockNumber;
  }
}

export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const began = Date.now();
  const say = options.say ?? (() => undefined);
  const random = randomOf(options.seed);
  const storage = await mkdtemp(join(tmpdir(), "gpux-relayer-chaos-"));
  const devnet = await startDevnet({ host: "127.0.0.1" });
  let node: FaultyNode | undefined;
  let relayer: RelayerProcess | undefined;
  let over = false;
  try {
    const secrets = [generatePrivateKey(), generatePrivateKey()];
    const keys = secrets.map((key) => addressOf(privateKeyToAccount(key)));
    for (const key of keys) await devnet.fundEth(key, parseEther("10"));
    const parties = await Promise.all(Array.from({ length: options.leases }, () => partyOf(devnet)));
    // Before any snapshot: what a reorganisation takes away of the test's own nobody brings back.
    for (const { terms } of parties) await devnet.mint(terms.payer, FUNDED);
    node = await startFaultyNode(devnet.url, random);
    relayer = new RelayerProcess(storage, {
      CHAIN_ID: String(devnet.chainId),
      ESCROW: devnet.escrow,
      RPC_URLS: node.url,
      RELAYER_KEYS: secrets.join(),
      POLICY,
    });
    await relayer.ready();
    const running = relayer;
    say(`${options.leases} leases, seed ${options.seed}`);

    let driven = 0;
    const driving = Promise.all(
      parties.map(async ({ stages }) => {
        for (const stage of stages) await Promise.all(stage.map((wire) => drive(running, wire, false)));
        driven += 1;
        if (driven % 20 === 0) say(`${driven} driven`);
      }),
    );
    const reorganising = reorganise(devnet, random, () => over);
    let kills = 0;
    const killing = (async () => {
      while (kills < options.kills) {
        await pause(1_000 + random() * 3_000);
        await running.restart();
        kills += 1;
        say(`killed ${kills} times`);
      }
    })();
    await Promise.all([driving, killing]);
    over = true;
    const { count: reorgs, deepest } = await reorganising;
    node.heal();
    say(`driven; ${reorgs} reorganisations`);

    const wires = parties.flatMap(({ stages }) => stages.flat());
    let final = false;
    const finalising = Promise.all(wires.map((wire) => drive(running, wire, true))).finally(() => {
      final = true;
    });
    // Nothing else makes blocks, and nothing is final without those on top.
    while (!final) {
      await devnet.mine();
      await pause(300);
    }
    await finalising;
    const all = await transactionsOf(running);
    const wei = await audit(devnet, parties, keys, parseEther("10") * BigInt(keys.length), all);
    return {
      leases: options.leases,
      kills,
      reorgs,
      deepest,
      faults: Object.fromEntries(node.faults),
      transactions: all.length,
      intents: wires.length,
      wei: wei.toString(),
      seconds: Math.round((Date.now() - began) / 1000),
    };
  } finally {
    over = true;
    relayer?.kill();
    await node?.close();
    await devnet.close();
    await rm(storage, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      leases: { type: "string", default: "200" },
      kills: { type: "string", default: "20" },
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
    },
  });
  const report = await runChaos({
    leases: Number(values.leases),
    kills: Number(values.kills),
    seed: Number(values.seed),
    say: (line) => console.error(line),
  });
  console.log(JSON.stringify(report, null, 2));
}
