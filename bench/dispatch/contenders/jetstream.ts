import { join } from "node:path";
import { startOurs } from "../../child.ts";
import { type Contender, servingPort } from "./contender.ts";
import { startNatsServer } from "./nats.ts";
import { accepting } from "./plain-job.ts";

const program = new URL("../programs/jetstream.ts", import.meta.url);

export const jetstream: Contender = {
  name: "jetstream",
  about:
    "NATS JetStream: 202 when a stream in files has acknowledged the job, then its result, stored likewise",
  async start(stage) {
    const files = ["-js", "-sd", join(stage.folder, "jetstream")];
    const started = await startNatsServer(stage, "jetstream-server", files);
    if ("lacks" in started) return started;
    const { server, servers } = started;
    const worker = stage.owned(startOurs("jetstream-worker", stage.folder, program, ["worker", servers]));
    await servingPort(worker);
    const gateway = stage.owned(startOurs("jetstream-gateway", stage.folder, program, ["gateway", servers]));
    return accepting(stage, await servingPort(gateway), [gateway, server, worker]);
  },
};
