import type { LeaseId } from "@gpux/protocol/ids";
import { type JobEvent, JobView, TERMINAL } from "@gpux/protocol/job";
import { formatAmount } from "@gpux/protocol/money";
import {
  type Client,
  GpuxError,
  type JobInput,
  type ReceiptCheck,
  verifyKept,
  verifyReceipt,
} from "@gpux/sdk";
import type { Command } from "commander";
import { DEFAULT_DEPOSIT, DEFAULT_MAX_PRICE } from "../config.ts";
import { type LoadedFunction, loadFunction } from "../function-source.ts";
import { readInputs, sendInputs } from "../inputs.ts";
import { EXIT, UsageError } from "../outcome.ts";
import { indexOfOutput, type OutputTarget, planOutputs, writeAtomically } from "../outputs.ts";
import { createProgress, shortAddress, stateAfterEvent, stateOfView } from "../progress.ts";
import { type CommonFlags, openSession, type Session, usdc, withCommonFlags } from "../session.ts";
import { paint, printJson, say, type Terminal } from "../terminal.ts";

interface RunFlags extends CommonFlags {
  readonly input: string[];
  readonly out: string[];
  readonly maxPrice?: string;
  readonly checkpoint?: boolean;
  readonly verified?: boolean;
  readonly deposit?: string;
  readonly maxRate?: string;
  readonly allowAhead?: string;
  readonly gpu?: string;
  readonly region?: string;
  readonly lease?: string;
  readonly wait?: string;
}

const collect = (value: string, before: string[]) => [...before, value];

export function addRun(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const command = program
    .command("run <function>")
    .description("run a function: a folder with function.json, a packed .json file, or a sha256")
    .option("--input <name=value>", "a number, JSON, 1,2,3, @file, or sha256:<hex> (repeat)", collect, [])
    .option("--out <[name=]file>", "where an output goes; - is stdout (repeat)", collect, [])
    .option("--max-price <usdc>", `the most that the job may cost (default ${DEFAULT_MAX_PRICE})`)
    .option(
      "--deposit <usdc>",
      `the most to put into a new lease; the rest comes back (default ${DEFAULT_DEPOSIT})`,
    )
    .option("--max-rate <usdc>", "the most that a lease may cost per hour")
    .option(
      "--allow-ahead <usdc>",
      "allow later jobs of the lease so much too, without the wallet (default 0)",
    )
    .option("--gpu <model>", "only this model, such as RTX_4090")
    .option("--region <region>", "only this region")
    .option("--verified", "only GPUs that a challenge has shown to be there")
    .option("--lease <id>", "only this lease")
    .option("--checkpoint", "on a yieldable lease: keep, and pay, what was done when its GPU is taken back")
    .option("--wait <seconds>", "give up waiting after so long (exit code 124; the job goes on)");
  withCommonFlags(command)
    .addHelpText(
      "after",
      `
Example:
  $ gpux run examples/functions/pathtrace --input scene=@room.json --out room.png --max-price 0.05

Ctrl-C cancels the job; a second one leaves at once.
Exit codes: 0 done, 1 failure, 2 usage, 3 wallet or signature, 4 payment, 5 job failed, 124 time-out, 130 Ctrl-C.`,
    )
    .action(async (reference: string, flags: RunFlags) => done(await run(terminal, reference, flags)));
}

async function run(terminal: Terminal, reference: string, flags: RunFlags): Promise<number> {
  const waitMs = waitOf(flags.wait);
  const { maxPrice, deposit, maxRate, allowAhead, gpu, region } = flags;
  const session = await openSession(terminal, flags, {
    ...(maxPrice === undefined ? {} : { max_price: maxPrice }),
    ...(deposit === undefined ? {} : { deposit }),
    ...(maxRate === undefined ? {} : { max_rate: maxRate }),
    ...(allowAhead === undefined ? {} : { allow_ahead: allowAhead }),
    ...(gpu === undefined ? {} : { gpu }),
    ...(region === undefined ? {} : { region }),
  });
  const { client } = session;
  const loaded = await loadFunction(reference, client.objects);
  const inputs = await readInputs(loaded.manifest, flags.input);
  const targets = await planOutputs(loaded.manifest, flags.out);
  if (session.json && targets.some((target) => target.path === "-")) {
    throw new UsageError("--out - and --json both want stdout");
  }
  say(terminal, `${loaded.manifest.name} ${loaded.sha256.slice(0, 12)} on ${session.settings.url}`);
  if (loaded.packed !== null) await client.objects.put(loaded.packed);
  const request = requestOf(session, loaded, await sendInputs(inputs, client.objects), flags);
  const ended = await follow(session, request, waitMs);
  return ended.interrupted && ended.job.status !== "succeeded"
    ? canceled(session, ended.job)
    : finish(session, request, ended.job, targets);
}

function waitOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const seconds = Number(text);
  if (Number.isFinite(seconds) && seconds > 0 && seconds <= 86_400) return seconds * 1_000;
  throw new UsageError(`--wait ${text}: expected seconds, up to 86400`);
}

function requestOf(
  { settings }: Session,
  { sha256 }: LoadedFunction,
  inputs: NonNullable<JobInput["inputs"]>,
  { lease, checkpoint = false, verified = false }: Pick<RunFlags, "lease" | "checkpoint" | "verified">,
): JobInput {
  const { gpu, region } = settings;
  const demand = {
    ...(gpu === undefined ? {} : { gpu_model: gpu }),
    ...(region === undefined ? {} : { region }),
    ...(verified ? { verified } : {}),
  };
  return {
    function: sha256,
    inputs,
    max_price: usdc(settings.max_price, "--max-price"),
    ...(checkpoint ? { checkpoint } : {}),
    ...(Object.keys(demand).length === 0 ? {} : { demand }),
    ...(lease === undefined ? {} : { lease }),
  };
}

/** Position and price change without an event, so the view is asked for too. */
const VIEW_EVERY_MS = 2_000;

/** Sends the job and shows it on its way until it has ended. Ctrl-C cancels it, a second one leaves. */
async function follow(session: Session, request: JobInput, waitMs: number | null) {
  const { client, terminal } = session;
  const progress = createProgress(terminal);
  const gaveUp = new AbortController();
  const timer = waitMs === null ? undefined : setTimeout(() => gaveUp.abort(), waitMs);
  let interrupted = false;
  let id: string | null = null;
  const cancel = (job: string) =>
    client.jobs.cancel(job).catch((error: unknown) => {
      progress.line(`Canceling failed: ${error instanceof Error ? error.message : String(error)}`);
    });
  const ignore = terminal.onInterrupt(() => {
    if (interrupted) {
      progress.end();
      say(terminal, `Left at once.${id === null ? "" : ` The job may go on: gpux jobs cancel ${id}`}`);
      process.exit(EXIT.interrupted);
    }
    interrupted = true;
    progress.line("Canceling the job (Ctrl-C again leaves at once)");
    if (id !== null) void cancel(id);
  });
  let polling: NodeJS.Timeout | undefined;
  try {
    const job = await client.jobs.create(request);
    id = job.id;
    progress.line(`${job.id} on lease ${job.lease_id}`);
    if (interrupted) void cancel(id);
    let state = stateOfView(job, null);
    progress.show(state);
    polling = setInterval(async () => {
      // The stream is what counts; a view that did not come is asked for again.
      const view = await client.jobs.get(job.id).catch(() => null);
      if (view === null || TERMINAL.has(state.status)) return;
      state = stateOfView(view, state);
      progress.show(state);
    }, VIEW_EVERY_MS);
    for await (const event of client.jobs.events(job.id, { signal: gaveUp.signal })) {
      state = stateAfterEvent(state, event);
      if (event.type === "log") progress.line(logLine(event));
      progress.show(state);
    }
    return { job: await client.jobs.wait(job.id, { signal: gaveUp.signal }), interrupted };
  } catch (error) {
    if (gaveUp.signal.aborted && id !== null) throw stillRunning(id);
    throw error;
  } finally {
    clearTimeout(timer);
    clearInterval(polling);
    ignore();
    progress.end();
  }
}

export function logLine(event: JobEvent): string {
  return `| ${typeof event.data.line === "string" ? event.data.line : ""}`;
}

function stillRunning(id: string): GpuxError {
  return new GpuxError({
    code: "timed_out",
    title: "The job has not ended in time",
    hint: `It goes on: gpux jobs get ${id}, or gpux jobs cancel ${id}`,
  });
}

function canceled({ terminal, json }: Session, job: JobView): number {
  if (json) printJson(terminal, { job: JobView.encode(job), files: [], receipt: null });
  say(terminal, `Canceled ${job.id}; it cost ${formatAmount(job.price)} USDC`);
  return EXIT.interrupted;
}

/** Writes what the job made, checks its receipt and sums up. */
async function finish(
  session: Session,
  request: JobInput,
  job: JobView,
  targets: readonly OutputTarget[],
): Promise<number> {
  const { client, terminal, json } = session;
  const receipt = await checkReceipt(client, request, job);
  if (job.status !== "succeeded") {
    if (json) printJson(terminal, { job: JobView.encode(job), files: [], receipt: summaryOf(receipt) });
    sayFailure(terminal, job);
    return EXIT.job;
  }
  const files = [];
  for (const { name, path } of targets) {
    const index = indexOfOutput(job, name);
    const bytes = await client.jobs.output(job, index);
    if (path === "-") terminal.out.bytes(bytes);
    else await writeAtomically(path, bytes);
    files.push({ output: name, path, bytes: bytes.length, sha256: job.outputs[index]?.sha256 });
  }
  if (json) printJson(terminal, { job: JobView.encode(job), files, receipt: summaryOf(receipt) });
  sayDone(terminal, job, files, receipt);
  // A receipt that does not hold is no proof of what was paid for: a script must notice.
  return receipt === null || receipt.ok || PENDING.has(receipt.code) ? EXIT.ok : EXIT.failure;
}

/** Not wrong, only not there yet. */
const PENDING: ReadonlySet<string> = new Set(["receipt_missing", "not_settled"]);

async function checkReceipt(client: Client, request: JobInput, job: JobView): Promise<ReceiptCheck | null> {
  if (job.receipt === undefined) return null;
  const { settlement } = await client.wellKnown();
  const contextOf = async (lease: LeaseId) => ({
    chainId: settlement.chain_id,
    escrow: settlement.escrow,
    terms: (await client.leases.get(lease)).terms,
    request: { function: request.function, inputs: request.inputs ?? {} },
  });
  const last = await contextOf(job.lease_id);
  // One that has moved may have receipts of several leases.
  const paid = job.attempts.filter(({ receipt }) => receipt !== undefined);
  for (const lease of new Set(paid.map(({ lease_id = job.lease_id }) => lease_id))) {
    const context = lease === job.lease_id ? last : await contextOf(lease);
    const wrong = (await verifyKept(job, context)).find(({ ok }) => !ok);
    if (wrong !== undefined) return wrong;
  }
  return verifyReceipt(job, last);
}

function summaryOf(check: ReceiptCheck | null) {
  if (check === null) return null;
  return check.ok ? { verified: true } : { verified: false, code: check.code, detail: check.detail };
}

function sayDone(
  terminal: Terminal,
  job: JobView,
  files: readonly { path: string; bytes: number }[],
  receipt: ReceiptCheck | null,
): void {
  for (const { path, bytes } of files) say(terminal, `  ${path === "-" ? "stdout" : path} (${bytes} bytes)`);
  if (files.length === 0) {
    for (const { name, sha256 } of job.outputs)
      say(terminal, `  ${name} sha256:${sha256} (--out ${name}=FILE keeps it)`);
  }
  const seconds = (job.billed_ms / 1_000).toFixed(3);
  const price = `${formatAmount(job.price)} USDC for ${seconds} s on ${shortAddress(job.node)}`;
  say(terminal, `${paint(terminal, "green", "done")}: ${price}`);
  if (receipt === null) say(terminal, "receipt: none yet");
  else if (receipt.ok) say(terminal, `receipt: ${receipt.receipt.gpu}, signed by node and edge`);
  else say(terminal, `${paint(terminal, "yellow", "receipt")}: ${receipt.code}: ${receipt.detail}`);
}

export function sayFailure(terminal: Terminal, job: JobView): void {
  const { error } = job;
  say(
    terminal,
    `${paint(terminal, "red", "error")}: ${error?.title ?? `The job is ${job.status.replace("_", " ")}`}`,
  );
  if (error?.detail !== undefined) say(terminal, `  ${error.detail}`);
  if (error !== undefined) say(terminal, `  hint: ${error.hint}`);
  const code = error === undefined ? job.status : `${error.code} (${error.fault}'s fault)`;
  say(terminal, `  code: ${code}  job: ${job.id}  cost: ${formatAmount(job.price)} USDC`);
}
