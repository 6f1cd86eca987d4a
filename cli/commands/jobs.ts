import { type JobEvent, JobView, TERMINAL } from "@gpux/protocol/job";
import { formatAmount } from "@gpux/protocol/money";
import type { Command } from "commander";
import { EXIT, UsageError } from "../outcome.ts";
import { describe, shortAddress, stateOfView } from "../progress.ts";
import { type CommonFlags, openSession, type Session, withCommonFlags } from "../session.ts";
import { printJson, type Terminal, table } from "../terminal.ts";
import { logLine, sayFailure } from "./run.ts";

export function addJobs(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const jobs = program.command("jobs").description("look at jobs, follow them, cancel them");

  withCommonFlags(
    jobs
      .command("get <id>")
      .description("a job as it is now")
      .option("--wait <seconds>", "up to 60 s for its end"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux jobs get job_... --wait 30 --json")
    .action(async (id: string, flags: CommonFlags & { wait?: string }) => {
      const wait = flags.wait === undefined ? undefined : Number(flags.wait);
      if (wait !== undefined && !(wait >= 1 && wait <= 60)) {
        throw new UsageError(`--wait ${flags.wait}: expected 1 to 60 seconds`);
      }
      const session = await openSession(terminal, flags);
      const job = await session.client.jobs.get(id, wait === undefined ? {} : { wait });
      show(session, job);
      done(TERMINAL.has(job.status) && job.status !== "succeeded" ? EXIT.job : EXIT.ok);
    });

  withCommonFlags(
    jobs
      .command("events <id>")
      .description("a job's events to its end, one a line")
      .option("--after <event>", "only events after this number"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux jobs events job_... --json | jq .type")
    .action(async (id: string, flags: CommonFlags & { after?: string }) => {
      const lastEventId = flags.after === undefined ? undefined : Number(flags.after);
      if (lastEventId !== undefined && !(Number.isInteger(lastEventId) && lastEventId >= 0)) {
        throw new UsageError(`--after ${flags.after}: expected the number of an event`);
      }
      const session = await openSession(terminal, flags);
      for await (const event of session.client.jobs.events(id, { lastEventId })) {
        if (session.json) printJson(terminal, event);
        else terminal.out.write(eventLine(event));
      }
      done(EXIT.ok);
    });

  withCommonFlags(jobs.command("retry <id>").description("do an ended job again on its lease"))
    .addHelpText("after", "\nAsked again it is the same new job.\nExample:\n  $ gpux jobs retry job_...")
    .action(async (id: string, flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      show(session, await session.client.jobs.retry(id));
      done(EXIT.ok);
    });

  withCommonFlags(jobs.command("cancel <id>").description("stop a job; what it used is charged"))
    .addHelpText("after", "\nExample:\n  $ gpux jobs cancel job_...")
    .action(async (id: string, flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      show(session, await session.client.jobs.cancel(id));
      done(EXIT.ok);
    });
}

function show({ terminal, json }: Session, job: JobView): void {
  if (json) return printJson(terminal, JobView.encode(job));
  const rows = [
    ["job", job.id],
    ["status", describe(stateOfView(job, null))],
    ["node", shortAddress(job.node)],
    ["lease", job.lease_id],
    ["cost", `${formatAmount(job.price)} of at most ${formatAmount(job.max_price)} USDC`],
    ...job.outputs.map((output) => [
      "output",
      `${output.name} sha256:${output.sha256} ${output.bytes} bytes`,
    ]),
  ];
  terminal.out.write(table(rows));
  if (job.error !== undefined) sayFailure(terminal, job);
}

/** Time, kind, and what is in it, for people. */
function eventLine(event: JobEvent): string {
  const data = event.type === "log" ? logLine(event) : JSON.stringify(event.data);
  return table([[event.at, event.type.padEnd(8), data]]);
}
