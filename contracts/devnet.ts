/**
 * A local Optimism chain in memory: Hardhat's EDR with chain type op, the L1 data fee on, Multicall3, the
 * deterministic deployer, the USDC double and the LeaseEscrow. Block time follows the wall clock.
 *
 * In a program: `const devnet = await startDevnet({ host: "127.0.0.1" })`.
 * As a process: `node contracts/devnet.ts --port 8545 [--interval 2000] [--chain-id 31337] [--json]`.
 */
import { createServer } from "node:net";
import { parseArgs } from "node:util";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { Address } from "@gpux/protocol/ids";
import { encodeDeployData, type Hex, numberToHex } from "viem";
import { leaseEscrowBytecode, multicall3Bytecode, usdcDoubleBytecode } from "./bytecode.ts";
import {
  type AttachedDevnet,
  attachDevnet,
  type Client,
  createClient,
  MULTICALL3,
  send,
} from "./devnet-client.ts";
import { DETERMINISTIC_DEPLOYER, DETERMINISTIC_DEPLOYER_CODE } from "./escrow-code.ts";
import { ESCROW_DELAYS } from "./networks.ts";
import { DEVNET_MNEMONIC, devnetAccount, ENDOWED_ACCOUNTS } from "./roles.ts";

const L1_BLOCK = "0x4200000000000000000000000000000000000015";

/** A chain that ends with the program. */
export interface Devnet extends AttachedDevnet {
  /** Stops mining and listening; open keep-alive connections are cut. Idempotent. */
  close(): Promise<void>;
}

export interface DevnetOptions {
  /** 0 or absent: any free port. */
  readonly port?: number;
  readonly host: "127.0.0.1";
  readonly chainId?: number;
  /** Absent: a block for each transaction, at once. Else a block every so many milliseconds, as on OP (2000). */
  readonly intervalMs?: number;
}

/** The port is taken: for people, with nothing more to say. */
export class PortTaken extends Error {
  constructor(port: number) {
    super(`Port ${port} on 127.0.0.1 is taken. Choose another, or stop what listens there.`);
    this.name = "PortTaken";
  }
}

/** Hardhat's server never rejects when it cannot listen, so the port is tried first. */
async function freePort(port: number, host: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const probe = createServer();
  probe.once("error", (error: NodeJS.ErrnoException) =>
    reject(error.code === "EADDRINUSE" ? new PortTaken(port) : error),
  );
  probe.listen(port, host, () => {
    const address = probe.address();
    const found = address !== null && typeof address === "object" ? address.port : port;
    probe.close(() => resolve(found));
  });
  return await promise;
}

async function listen(options: DevnetOptions) {
  // Hardhat takes most of a second to load: only who starts a chain waits for it.
  process.env.HARDHAT_DISABLE_TELEMETRY = "1";
  const { createHardhatRuntimeEnvironment } = await import("hardhat/hre");
  const hre = await createHardhatRuntimeEnvironment({
    networks: {
      devnet: {
        type: "edr-simulated",
        chainType: "op",
        chainId: options.chainId ?? 31_337,
        accounts: { mnemonic: DEVNET_MNEMONIC, count: ENDOWED_ACCOUNTS },
        // Else every block in a busy second would push the chain's clock further ahead of the wall's.
        allowBlocksWithSameTimestamp: true,
        initialBaseFeePerGas: 1_000_000n,
        mining: { auto: true, interval: 0 },
        // A real node answers with the hash of a transaction that then fails.
        throwOnTransactionFailures: false,
      },
    },
  });
  const port = await freePort(options.port ?? 0, options.host);
  const server = await hre.network.createServer({ network: "devnet", chainType: "op" }, options.host, port);
  const { address } = await server.listen();
  return { server, url: `http://${address}:${port}` };
}

/**
 * EDR's genesis keeps the L1 fee scalars where L1Block does not look, so that receipts would say 0. Set
 * here, of a size as on OP Mainnet: L1 base fee 1 gwei, blob base fee 0.01 gwei, scalars 5227 and 1014213.
 */
async function turnOnL1Fee(client: Client): Promise<void> {
  const slots: ReadonlyArray<readonly [slot: number, value: bigint]> = [
    [1, 1_000_000_000n],
    [3, (5_227n << 96n) | (1_014_213n << 64n)],
    [7, 10_000_000n],
  ];
  for (const [slot, value] of slots) {
    await client.setStorageAt({ address: L1_BLOCK, index: slot, value: numberToHex(value, { size: 32 }) });
  }
}

async function deploy(client: Client, data: Hex): Promise<Address> {
  const { contractAddress } = await send(client, { data });
  return Address.parse(contractAddress);
}

async function deployAll(client: Client) {
  const { data: multicall3Code } = await client.call({ data: multicall3Bytecode });
  if (multicall3Code === undefined) throw new Error("Multicall3 has no code");
  await client.setCode({ address: MULTICALL3, bytecode: multicall3Code });
  await client.setCode({ address: DETERMINISTIC_DEPLOYER, bytecode: DETERMINISTIC_DEPLOYER_CODE });
  const usdc = await deploy(client, usdcDoubleBytecode);
  const escrow = await deploy(
    client,
    encodeDeployData({
      abi: leaseEscrowAbi,
      bytecode: leaseEscrowBytecode,
      args: [
        usdc,
        ESCROW_DELAYS.exit,
        ESCROW_DELAYS.cosignedExit,
        ESCROW_DELAYS.release,
        ESCROW_DELAYS.maxTerm,
      ],
    }),
  );
  return { usdc, escrow };
}

/** Ready when it resolves: contracts deployed, relayer and deployer hold ETH. Throws {@link PortTaken}. */
export async function startDevnet(options: DevnetOptions): Promise<Devnet> {
  const chainId = options.chainId ?? 31_337;
  const { server, url } = await listen(options);
  const client = createClient(url, chainId);
  await turnOnL1Fee(client);
  const { usdc, escrow } = await deployAll(client);
  if (options.intervalMs !== undefined) {
    await client.setAutomine(false);
    // viem counts seconds here; EDR counts milliseconds.
    await client.request({ method: "evm_setIntervalMining", params: [options.intervalMs] });
  }

  const deployer = devnetAccount("deployer").address;
  let closed: Promise<void> | undefined;

  return {
    ...attachDevnet({ url, chainId, usdc, escrow, multicall3: MULTICALL3, deployer }),
    close: () => {
      closed ??= (async () => {
        await client.request({ method: "evm_setIntervalMining", params: [0] });
        await server.close();
      })();
      return closed;
    },
  };
}

const USAGE = "usage: node contracts/devnet.ts [--port N] [--interval MS] [--chain-id N] [--json]";

function count(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-9]{1,9}$/.test(text)) throw new TypeError(`${text} is not a number. ${USAGE}`);
  return Number(text);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: "string" },
      interval: { type: "string" },
      "chain-id": { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  const intervalMs = count(values.interval);
  const devnet = await startDevnet({
    host: "127.0.0.1",
    port: count(values.port) ?? 8545,
    chainId: count(values["chain-id"]) ?? 31_337,
    ...(intervalMs === undefined ? {} : { intervalMs }),
  });
  const { url, chainId, usdc, escrow, multicall3, deployer } = devnet;
  const facts = { url, chainId, usdc, escrow, multicall3, deployer };
  console.log(
    values.json
      ? JSON.stringify(facts)
      : Object.entries(facts)
          .map(([name, value]) => `${name.padEnd(10)} ${value}`)
          .join("\n"),
  );
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      // A client's open WebSocket must not keep a chain that was told to go.
      devnet.close().finally(() => process.exit(0));
    });
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof PortTaken) && !(error instanceof TypeError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
