import { Queue, QueueEvents, Worker } from "bullmq";
import { createDesk } from "./desk.ts";
import { plainWork, ready, serve } from "./job-server.ts";

/**
 * BullMQ:
 *   worker PORT    works off the queue in the Redis of that port
 *   gateway PORT   an HTTP server that answers 202 when the job is in the queue
 */

const QUEUE = "gpux-bench";
/** Jobs that the worker has at once. */
const AT_ONCE = 64;
const KEPT = { count: 1_000 };

const [role, port] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
if (role === "gateway") {
  const queue = new Queue(QUEUE, { connection });
  const events = new QueueEvents(QUEUE, { connection });
  const desk = createDesk();
  events.on("completed", ({ jobId, returnvalue }) => desk.put(jobId, returnvalue));
  events.on("failed", ({ jobId, failedReason }) =>
    desk.put(jobId, JSON.stringify({ status: "failed", detail: failedReason })),
  );
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
  ready(
    await serve(async ({ method, url = "" }, body) => {
      const id = url.slice(1);
      if (method === "GET") return { status: 200, body: await desk.take(id) };
      desk.expect(id);
      await queue.add("job", body.toString(), { jobId: id, removeOnComplete: KEPT });
      return { status: 202, body: "{}" };
    }),
  );
} else {
  const work = await plainWork();
  const worker = new Worker<string, string>(QUEUE, async ({ data }) => work(Buffer.from(data)), {
    connection,
    concurrency: AT_ONCE,
  });
  await worker.waitUntilReady();
  ready(0);
}
