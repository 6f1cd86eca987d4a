import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetChain } from "@gpux/contracts/devnet-client";
import { devnetAccount } from "@gpux/contracts/roles";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { formatAmount } from "@gpux/protocol/money";
import {
  createPublicClient,
  createWalletClient,
  encodeFunctionData,
  type Hex,
  http,
  multicall3Abi,
  size,
} from "viem";
import { closing, funding, type Planned, withdrawals } from "./plan.ts";
import {
  consumer,
  DEPOSIT,
  feeRecipient,
  leasesOf,
  NODES,
  nodesOf,
  type Rented,
  TOP_UP,
  USED_HOURS,
} from "./scenario.ts";

/** One relayed transaction of the example. */
export interface Step {
  readonly what: string;
  /** Who signed what it carries; the relayer only sends it. */
  readonly signers: string;
  readonly gas: bigint;
  readonly calldataBytes: number;
  readonly l1Fee: bigint;
}

export interface Run {
  readonly steps: readonly Step[];
  /** USDC base units at the end. */
  readonly balances: Readonly<Record<string, bigint>>;
}

const START_USDC = 100_000_000n;

/** Nothing may fail: this is an example, not a relayer. */
function together(chain: Devnet, what: string, signers: string, calls: readonly Hex[]): Planned {
  const args = [calls.map((callData) => ({ target: chain.escrow, allowFailure: false, callData }))] as const;
  const data = encodeFunctionData({ abi: multicall3Abi, functionName: "aggregate3", args });
  return { what, signers, to: chain.multicall3, data };
}

/** (a) A transaction of its own for each deposit, top-up and refund. */
async function nineTransactions(chain: Devnet, leases: readonly Rented[], now: number) {
  const each = <T>(work: (one: Rented, n: number) => Promise<T>) => Promise.all(leases.map(work));
  return {
    deposits: await each((one, n) => funding(chain, [one], DEPOSIT, now, `deposit to node ${n + 1}`)),
    topUps: await each((one, n) => funding(chain, [one], TOP_UP, now, `top-up of node ${n + 1}`)),
    refunds: await each(async (one, n) =>
      together(chain, `refund by node ${n + 1}`, `consumer, node ${n + 1}`, [
        await closing(chain, one, now),
        ...withdrawals([one]),
      ]),
    ),
  };
}

/** (b) One signature and one transaction for each of the three steps. */
async function threeTransactions(chain: Devnet, leases: readonly Rented[], now: number) {
  const closes = await Promise.all(leases.map((one) => closing(chain, one, now)));
  return {
    deposits: [await funding(chain, leases, DEPOSIT, now, "three deposits")],
    topUps: [await funding(chain, leases, TOP_UP, now, "three top-ups")],
    refunds: [
      together(chain, "three refunds", "consumer, nodes 1 to 3", [...closes, ...withdrawals(leases)]),
    ],
  };
}

/** The example on a chain of its own, so that both ways start from the same books. */
export async function runSeed(way: "nine" | "three"): Promise<Run> {
  const chain = await startDevnet({ host: "127.0.0.1" });
  try {
    await chain.mint(consumer.address, START_USDC);
    const publicClient = createPublicClient({
      chain: devnetChain(chain.url, chain.chainId),
      transport: http(chain.url),
      cacheTime: 0,
      pollingInterval: 50,
    });
    const relayer = createWalletClient({
      account: devnetAccount("relayer").account,
      transport: http(chain.url),
    });
    const { timestamp } = await publicClient.getBlock();
    const now = Number(timestamp);
    const leases = leasesOf(nodesOf(NODES), now);
    const plan = await (way === "nine" ? nineTransactions : threeTransactions)(chain, leases, now);

    const send = async (planned: Planned): Promise<Step> => {
      const hash = await relayer.sendTransaction({ to: planned.to, data: planned.data, chain: null });
      const receipt = await publicClient.waitForTransactionReceipt({ hash });
      if (receipt.status !== "success") throw new Error(`${planned.what} reverted`);
      return {
        what: planned.what,
        signers: planned.signers,
        gas: receipt.gasUsed,
        calldataBytes: size(planned.data),
        l1Fee: receipt.l1Fee ?? 0n,
      };
    };
    const steps: Step[] = [];
    for (const planned of [...plan.deposits, ...plan.topUps]) steps.push(await send(planned));
    await chain.increaseTime(USED_HOURS * 3_600);
    for (const planned of plan.refunds) steps.push(await send(planned));

    const holders = {
      consumer: consumer.address,
      "node 1": leases[0]?.terms.provider,
      "node 2": leases[1]?.terms.provider,
      "node 3": leases[2]?.terms.provider,
      "fee recipient": feeRecipient,
      escrow: chain.escrow,
    };
    const balances: Record<string, bigint> = {};
    for (const [name, address] of Object.entries(holders))
      if (address !== undefined)
        balances[name] = await publicClient.readContract({
          address: chain.usdc,
          abi: usdcAbi,
          functionName: "balanceOf",
          args: [address],
        });
    return { steps, balances };
  } finally {
    await chain.close();
  }
}

function print(title: string, run: Run): void {
  console.log(`\n${title}`);
  console.log(
    `  ${"transaction".padEnd(20)} ${"signed by".padEnd(24)} ${"gas".padStart(8)} ${"calldata".padStart(9)} ${"L1 fee (wei)".padStart(15)}`,
  );
  const total = { gas: 0n, bytes: 0, l1: 0n };
  for (const step of run.steps) {
    total.gas += step.gas;
    total.bytes += step.calldataBytes;
    total.l1 += step.l1Fee;
    console.log(
      `  ${step.what.padEnd(20)} ${step.signers.padEnd(24)} ${String(step.gas).padStart(8)} ${`${step.calldataBytes} B`.padStart(9)} ${String(step.l1Fee).padStart(15)}`,
    );
  }
  console.log(
    `  ${`${run.steps.length} in all`.padEnd(45)} ${String(total.gas).padStart(8)} ${`${total.bytes} B`.padStart(9)} ${String(total.l1).padStart(15)}`,
  );
  console.log("  balances at the end (USDC)");
  for (const [name, amount] of Object.entries(run.balances))
    console.log(`    ${name.padEnd(14)} ${formatAmount(amount).padStart(12)}`);
}

if (import.meta.main) {
  console.log(
    "3 nodes x {32 cores, 128 GB, 4 GPUs}: three hours paid, three more topped up, ended after four.",
  );
  const nine = await runSeed("nine");
  print("(a) a transaction for each deposit, top-up and refund", nine);
  const three = await runSeed("three");
  print("(b) batched", three);
  const gas = (run: Run) => run.steps.reduce((sum, step) => sum + step.gas, 0n);
  console.log(
    `\n(b) takes ${((Number(gas(three)) / Number(gas(nine))) * 100).toFixed(1)} % of the gas of (a); the books agree to the base unit.`,
  );
}
