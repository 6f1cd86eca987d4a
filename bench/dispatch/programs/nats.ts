import { connect } from "@nats-io/transport-node";
import { plainWork, ready, serve } from "./job-server.ts";
import { JOBS, TIMEOUT_MS } from "./nats-subjects.ts";

/**
 * NATS request-reply:
 *   responder ADDRESS   the executor behind a subject
 *   gateway ADDRESS     an HTTP server that asks that subject
 */

const [role, servers = ""] = process.argv.slice(2);
const nats = await connect({ servers });
if (role === "gateway") {
  const ask = async (body: Uint8Array) => (await nats.request(JOBS, body, { timeout: TIMEOUT_MS })).data;
  ready(await serve(async (_request, body) => ({ status: 200, body: await ask(body) })));
} else {
  const work = await plainWork();
  nats.subscribe(JOBS, {
    callback: (error, message) => {
      if (error !== null) throw error;
      work(message.data).then(
        (answer) => message.respond(answer),
        (failure: unknown) => message.respond(JSON.stringify({ status: "failed", detail: String(failure) })),
      );
    },
  });
  await nats.flush();
  ready(0);
}
