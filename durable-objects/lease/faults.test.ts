import { evictDurableObject } from "cloudflare:test";
import { jobIdOf } from "@gpux/protocol/ids";
import { JobRequest } from "@gpux/protocol/job";
import { sessionIdOf } from "@gpux/protocol/session";
import { expect, test } from "vitest";
import { addressOf } from "../testing/client.ts";
import { DataLine, funded, OUTPUT } from "./testing/data-line.ts";
import { meetNeighbours, neighbours } from "./testing/neighbours.ts";

// What an agent may get wrong or lie about, against the lease's object (SPEC, bad input and faults of a lease).

meetNeighbours();

const request = JobRequest.parse({ function: "f".repeat(64), inputs: {}, max_price: "100000" });

/** A funded lease with one job on it, and the calls of who pays for it. */
async function leased() {
  const { wallet, stub, lease } = await funded(neighbours);
  const by = addressOf(wallet);
  const id = (n: number) => jobIdOf(lease, new Uint8Array(16).fill(n));
  return {
    stub,
    lease,
    id,
    submit: (n: number) => stub.submit(by, id(n), request, null, 0),
    job: (n: number) => stub.job(by, id(n), 0),
    view: async () => {
      const answer = await stub.view(by);
      if (!answer.ok) throw new Error(answer.code);
      return answer.lease;
    },
  };
}

test("JOB-5 the result of a lost attempt counts for nothing, said again however often; that of the one under way is charged once", async () => {
  const { stub, lease, id, submit, job, view } = await leased();
  const first = await DataLine.dial(lease);
  await submit(1);
  const lost = await first.run();
  first.started(lost);
  await expect.poll(() => job(1)).toMatchObject({ job: { status: "running" } });
  // Another life of the lease, and of the agent, which knows nothing of what it was running.
  await evictDurableObject(stub, { webSockets: "close" });
  const second = await DataLine.dial(lease, [], first);
  const again = await second.run();
  expect(again).toMatchObject({ job: id(1), attempt: { epoch: lost.attempt.epoch + 1, n: 2 } });
  second.started(again);
  const forged = { ...OUTPUT, sha256: "b".repeat(64) };
  for (const attempt of [lost.attempt, { ...again.attempt, epoch: lost.attempt.epoch }, lost.attempt])
    second.succeeded({ job: id(1), attempt }, forged, 60_000);
  await expect
    .poll(() => job(1))
    .toMatchObject({ job: { status: "running", attempts: [{ outcome: "node_lost" }, {}] } });
  expect(await view()).toMatchObject({ spent: 0n, jobs_ended: 0 });

  second.succeeded(again);
  await expect
    .poll(() => job(1))
    .toMatchObject({
      job: {
        status: "succeeded",
        outputs: [{ sha256: OUTPUT.sha256 }],
        attempts: [
          { n: 1, paid: 0n },
          { n: 2, outcome: "succeeded" },
        ],
      },
    });
  const { spent } = await view();
  second.succeeded({ job: id(1), attempt: lost.attempt }, forged, 60_000);
  second.succeeded(again, forged, 60_000);
  await submit(2);
  expect((await second.run()).job, "it has heard all of that").toBe(id(2));
  expect(await job(1)).toMatchObject({ job: { outputs: [{ sha256: OUTPUT.sha256 }] } });
  expect(await view()).toMatchObject({ spent, jobs_ended: 1 });
});

test("LNK-3 a job that the agent says it runs and nobody knows is not in the welcome, and what is said of it is nothing", async () => {
  const { lease, id, submit, job, view } = await leased();
  const unknown = { job: id(9), attempt: { epoch: 1, n: 1 } };
  const agent = await DataLine.dial(lease, [unknown]);
  // The list holds: what is not on it the agent stops (agent/agent-reconnection.test.ts).
  expect(await agent.welcome()).toMatchObject({ attempts: [] });
  agent.succeeded(unknown, OUTPUT, 60_000);
  await submit(1);
  const run = await agent.run();
  agent.succeeded(run);
  await expect.poll(() => job(1)).toMatchObject({ job: { status: "succeeded" } });
  expect(await job(9)).toMatchObject({ ok: false, code: "job_unknown" });
  expect(await view()).toMatchObject({ jobs_ended: 1, node_connected: true });
});

test("SES-5 what a session's lease gives back is on record: no crash brings back the job that it was for", async () => {
  // Seed 48259: its end was told and not written; its agent brought it back after a crash, and the cap was passed.
  const { wallet, stub, lease } = await funded(neighbours);
  const id = jobIdOf(lease, new Uint8Array(16).fill(1));
  const session = sessionIdOf(new Uint8Array(16).fill(7));
  const until = Date.now() + 600_000;
  expect(await stub.admitSession(session, until, 100_000n, 1)).toEqual({ ok: true });
  const agent = await DataLine.dial(lease);
  const ended = stub.submit({ address: addressOf(wallet), session, bearer: false }, id, request, null, 5_000);
  agent.failed(await agent.run());
  expect(await ended).toMatchObject({ job: { status: "failed", price: 0n } });
  expect(await stub.trimSession(session, until, 2)).toBe(0n);
  await evictDurableObject(stub, { webSockets: "close" });
  expect(await stub.job(addressOf(wallet), id, 0)).toMatchObject({ job: { status: "failed" } });
});
