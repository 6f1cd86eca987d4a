import { type Child, startOurs, startProgram } from "../../child.ts";
import { freePort } from "../../free-port.ts";
import { startClient } from "../../load/client.ts";
import type { NatsLoad } from "../programs/nats-client.ts";
import {
  type Contender,
  type Lacking,
  lacking,
  listensOn,
  onPath,
  type Stage,
  servingPort,
} from "./contender.ts";
import { answering, plainJob } from "./plain-job.ts";

const program = new URL("../programs/nats.ts", import.meta.url);
const client = new URL("../programs/nats-client.ts", import.meta.url);

export const nats: Contender = {
  name: "nats",
  about: "NATS request-reply: an HTTP gateway in Node, nats-server, the executor behind a subject",
  async start(stage) {
    const started = await startNatsServer(stage, "nats-server", []);
    if ("lacks" in started) return started;
    const { server, servers } = started;
    const responder = await startResponder(stage, "responder", servers);
    const gateway = stage.owned(startOurs("gateway", stage.folder, program, ["gateway", servers]));
    return answering(stage, await servingPort(gateway), [gateway, server, responder]);
  },
};

export const rawNats: Contender = {
  name: "nats-raw",
  about: "NATS request-reply without a gateway: the client speaks NATS itself",
  async start(stage) {
    const started = await startNatsServer(stage, "nats-server-raw", []);
    if ("lacks" in started) return started;
    const { server, servers } = started;
    const responder = await startResponder(stage, "responder-raw", servers);
    const generator = stage.owned(startClient<NatsLoad>("nats-client", stage.folder, client));
    const body = await plainJob();
    return {
      processes: [server, responder],
      async prepare({ connections }) {
        return (ms) => generator.run({ servers, body, connections, ms });
      },
    };
  },
};

/** A server on a free port, with options of its command line. */
export async function startNatsServer(
  stage: Stage,
  name: string,
  options: readonly string[],
): Promise<{ readonly server: Child; readonly servers: string } | Lacking> {
  const found = onPath("nats-server");
  if (found === null) return lacking("nats-server", "nats-server");
  const port = await freePort();
  const command = [found, "-a", "127.0.0.1", "-p", `${port}`, ...options];
  const server = stage.owned(startProgram(name, stage.folder, command));
  await listensOn(server, port);
  return { server, servers: `127.0.0.1:${port}` };
}

async function startResponder(stage: Stage, name: string, servers: string): Promise<Child> {
  const responder = stage.owned(startOurs(name, stage.folder, program, ["responder", servers]));
  await servingPort(responder);
  return responder;
}
