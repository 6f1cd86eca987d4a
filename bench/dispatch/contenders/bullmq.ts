import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { startOurs, startProgram } from "../../child.ts";
import { freePort } from "../../free-port.ts";
import { type Contender, lacking, listensOn, onPath, servingPort } from "./contender.ts";
import { accepting } from "./plain-job.ts";

const program = new URL("../programs/bullmq.ts", import.meta.url);

/** Once a second is what Redis does by default with a file of its own; `always` is on disk before it answers. */
export const bullmq = bullmqOn("bullmq", "everysec");
export const durableBullmq = bullmqOn("bullmq-always", "always");

function bullmqOn(name: string, appendfsync: "everysec" | "always"): Contender {
  return {
    name,
    about: `BullMQ on Redis with appendfsync ${appendfsync}: 202 when the job is queued, then its result`,
    async start(stage) {
      const redis = onPath("redis-server");
      if (redis === null) return lacking("redis-server", "redis-server");
      const port = await freePort();
      const folder = join(stage.folder, name);
      await mkdir(folder);
      const options = {
        bind: "127.0.0.1",
        port: `${port}`,
        dir: folder,
        appendonly: "yes",
        appendfsync,
        "maxmemory-policy": "noeviction",
      };
      const command = Object.entries(options).flatMap(([option, value]) => [`--${option}`, value]);
      const server = stage.owned(startProgram(`${name}-redis`, stage.folder, [redis, ...command]));
      await listensOn(server, port);
      const worker = stage.owned(startOurs(`${name}-worker`, stage.folder, program, ["worker", `${port}`]));
      await servingPort(worker);
      const gateway = stage.owned(
        startOurs(`${name}-gateway`, stage.folder, program, ["gateway", `${port}`]),
      );
      return accepting(stage, await servingPort(gateway), [gateway, server, worker]);
    },
  };
}
