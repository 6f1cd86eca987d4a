import {
  AckPolicy,
  type JsMsg,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
} from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { createDesk } from "./desk.ts";
import { plainWork, ready, serve } from "./job-server.ts";
import { JOBS, RESULTS } from "./nats-subjects.ts";

/**
 * NATS JetStream, both streams in files:
 *   worker ADDRESS    makes the streams, works off the jobs; a job is acknowledged when its result is stored
 *   gateway ADDRESS   an HTTP server that answers 202 when the server has acknowledged the job
 */

const WORKER = "worker";
/** Jobs that are handed out at once. */
const AT_ONCE = 256;

const [role, servers = ""] = process.argv.slice(2);
const nats = await connect({ servers });
const stream = jetstream(nats);
if (role === "gateway") {
  const desk = createDesk();
  // A subscriber of the subject sees what is published to the stream that stores it.
  nats.subscribe(`${RESULTS}.*`, {
    callback: (error, message) => {
      if (error !== null) throw error;
      desk.put(message.subject.slice(RESULTS.length + 1), message.string());
    },
  });
  await nats.flush();
  ready(
    await serve(async ({ method, url = "" }, body) => {
      const id = url.slice(1);
      if (method === "GET") return { status: 200, body: await desk.take(id) };
      desk.expect(id);
      await stream.publish(`${JOBS}.${id}`, body);
      return { status: 202, body: "{}" };
    }),
  );
} else {
  const manager = await jetstreamManager(nats);
  const storage = StorageType.File;
  await manager.streams.add({
    name: "jobs",
    subjects: [`${JOBS}.*`],
    storage,
    retention: RetentionPolicy.Workqueue,
  });
  await manager.streams.add({ name: "results", subjects: [`${RESULTS}.*`], storage, max_msgs: 10_000 });
  await manager.consumers.add("jobs", {
    durable_name: WORKER,
    ack_policy: AckPolicy.Explicit,
    max_ack_pending: AT_ONCE,
  });
  const work = await plainWork();
  const consumer = await stream.consumers.get("jobs", WORKER);
  const workOff = async (message: JsMsg) => {
    const answer = await work(message.data);
    await stream.publish(`${RESULTS}.${message.subject.slice(JOBS.length + 1)}`, answer);
    message.ack();
  };
  // What rejects ends the process, and so the bench.
  await consumer.consume({ max_messages: AT_ONCE, callback: (message) => void workOff(message) });
  ready(0);
}
