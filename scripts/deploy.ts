import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { WalletError } from "@gpux/cli/outcome";
import { processTerminal } from "@gpux/cli/terminal";
import { accountOfKey, openWallet, readPasswordFile } from "@gpux/cli/wallet";
import { checkNetwork, deployEscrow, verifyEscrow } from "@gpux/contracts/deploy";
import { encodedConstructorArgs, escrowAddress } from "@gpux/contracts/escrow-code";
import { standardJson, verificationOf } from "@gpux/contracts/explorer";
import { NETWORKS, type Network, type NetworkName } from "@gpux/contracts/networks";
import type { DeployRefusal } from "@gpux/contracts/token-check";
import { Address } from "@gpux/protocol/ids";
import { BaseError, createPublicClient, createWalletClient, defineChain, http } from "viem";
import type { PrivateKeyAccount } from "viem/accounts";
import { chainConfig } from "viem/op-stack";

const HELP = `npm run deploy -- --network local|op-sepolia|op-mainnet [options]

Puts LeaseEscrow on an OP chain, at the address that follows from its code and the token (CREATE2), and checks chain
and token before and the contract after. Again on the same chain it only checks.

  --network NAME        local is the chain of npm start, or of node contracts/devnet.ts
  --rpc URL             JSON-RPC of that chain (GPUX_RPC; local: http://127.0.0.1:8545)
  --dry-run             print the address and every check, send nothing; needs no key
  --wallet FILE         keystore of the account that pays the gas, such as gpux wallet new makes (GPUX_WALLET)
  --password-file FILE  its first line opens the wallet (else GPUX_PASSWORD, else a prompt)
  --token ADDRESS       another token than the local chain's own; only with --network local
  --out FOLDER          where the standard JSON for explorers goes (default .gpux/deploy/NETWORK)
  --json                the outcome as JSON on stdout, talk on stderr
  --help                this text

GPUX_PRIVATE_KEY stands in for a wallet. The account needs ETH on that chain and nothing else: it gets no rights.
Exit codes: 0 it stands there and is right (or would, with --dry-run), 1 refused or failed, 2 usage, 3 wallet.`;

const EXIT = { ok: 0, failed: 1, usage: 2, wallet: 3 } as const;
const LOCAL_RPC = "http://127.0.0.1:8545";
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const say = (line: string) => console.error(line);

/** What a person can mend, said without a stack trace. */
class Trouble extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

const usage = (message: string) => new Trouble(`${message}\nnpm run deploy -- --help shows how.`, EXIT.usage);

function parsed() {
  try {
    return parseArgs({
      options: {
        network: { type: "string" },
        rpc: { type: "string" },
        "dry-run": { type: "boolean", default: false },
        wallet: { type: "string" },
        "password-file": { type: "string" },
        token: { type: "string" },
        out: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error));
  }
}
type Options = ReturnType<typeof parsed>;

function isNetwork(name: string | undefined): name is NetworkName {
  return name !== undefined && Object.hasOwn(NETWORKS, name);
}

function networkOf(options: Options): { name: NetworkName; network: Network; rpc: string } {
  const { network: name, token } = options;
  if (!isNetwork(name))
    throw usage(`--network ${name ?? "is missing"}: expected ${Object.keys(NETWORKS).join(", ")}.`);
  const rpc = options.rpc ?? process.env.GPUX_RPC ?? (name === "local" ? LOCAL_RPC : undefined);
  if (rpc === undefined || !/^https?:$/.test(URL.parse(rpc)?.protocol ?? ""))
    throw usage(`--rpc ${rpc ?? "is missing"}: expected the http(s) URL of a JSON-RPC node.`);
  if (token === undefined) return { name, network: NETWORKS[name], rpc };
  if (name !== "local")
    throw usage("--token: the tokens of public chains are fixed, in contracts/networks.ts.");
  const address = Address.safeParse(token);
  if (!address.success) throw usage(`--token ${token}: expected an address.`);
  return { name, network: { ...NETWORKS.local, token: address.data }, rpc };
}

/** Null when none was named. */
async function payerOf(options: Options): Promise<PrivateKeyAccount | null> {
  const { GPUX_PRIVATE_KEY, GPUX_WALLET, GPUX_PASSWORD } = process.env;
  const wallet = options.wallet ?? GPUX_WALLET;
  if (wallet === undefined) return GPUX_PRIVATE_KEY ? accountOfKey(GPUX_PRIVATE_KEY) : null;
  return await openWallet(wallet, async () =>
    options["password-file"] === undefined
      ? GPUX_PASSWORD || (await processTerminal().askSecret(`Password of ${wallet}: `))
      : readPasswordFile(options["password-file"]),
  );
}

const refused = ({ code, detail }: DeployRefusal) => new Trouble(`${detail} (${code})`, EXIT.failed);

async function main(): Promise<void> {
  const options = parsed();
  if (options.help) return void console.log(HELP);
  const { name, network, rpc } = networkOf(options);
  const report = (check: string, found: string) => say(`  ${check.padEnd(24)} ${found}`);
  const chain = defineChain({
    ...chainConfig,
    id: network.chainId,
    name: network.name,
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [rpc] } },
    contracts: chainConfig.contracts,
  });
  const transport = http(rpc, { timeout: 20_000 });
  const reader = createPublicClient({ transport });
  const account = await payerOf(options);
  if (account === null && !options["dry-run"])
    throw new WalletError(
      "No account pays the gas",
      "Name a keystore with --wallet, or set GPUX_PRIVATE_KEY.",
    );

  say(`${options["dry-run"] ? "Checking" : "Deploying to"} ${network.name} through ${new URL(rpc).host}`);
  let transaction: `0x${string}` | null = null;
  if (account === null || options["dry-run"]) {
    const facts = await checkNetwork(reader, network, report);
    if (!facts.ok) throw refused(facts);
    if (facts.deployed) {
      const verified = await verifyEscrow(reader, network, report);
      if (!verified.ok) throw refused(verified);
    }
    printOutcome({ deployed: facts.deployed });
    say(facts.deployed ? "It stands there already, and is right." : "Nothing was sent.");
    return;
  }
  const wallet = createWalletClient({ account, chain, transport });
  const deployment = await deployEscrow(reader, wallet, network, report);
  if (!deployment.ok) throw refused(deployment);
  transaction = deployment.transaction;
  printOutcome({ deployed: true });
  say(
    transaction === null ? "It stood there already, and is right: nothing was sent." : "Deployed, and right.",
  );

  const folder = resolve(options.out ?? join(root, ".gpux", "deploy", name));
  const file = join(folder, "LeaseEscrow.standard.json");
  await mkdir(folder, { recursive: true });
  await writeFile(file, await standardJson());
  const shown = relative(process.cwd(), file);
  say(`\n${verificationOf(network, shown)}`);

  function printOutcome({ deployed }: { deployed: boolean }): void {
    const escrow = escrowAddress(network.token);
    if (options.json)
      console.log(
        JSON.stringify({
          network: name,
          chain_id: network.chainId,
          token: network.token,
          escrow,
          deployed,
          transaction,
          constructor_arguments: encodedConstructorArgs(network.token),
        }),
      );
    else console.log(escrow);
  }
}

try {
  await main();
} catch (error) {
  if (error instanceof Trouble) {
    say(error.message);
    process.exitCode = error.exitCode;
  } else if (error instanceof WalletError) {
    say(`${error.message}. ${error.hint}`);
    process.exitCode = EXIT.wallet;
  } else if (error instanceof BaseError) {
    // The node's trouble, or the network's: viem's short message says it, a stack would not help.
    say(`${error.shortMessage} ${error.details}\nNothing is lost: run it again, it goes on where it was.`);
    process.exitCode = EXIT.failed;
  } else throw error;
}
