import { accessSync, constants } from "node:fs";
import { connect as connectTcp } from "node:net";
import { delimiter, join } from "node:path";
import { z } from "zod";
import { type Child, cameUp, startOurs, startProgram } from "../child.ts";
import { freePort } from "../free-port.ts";

const PROGRAM = "nats-server";
const UP_MS = 10_000;
const Serving = z.strictObject({ port: z.int() });
const plainServer = new URL("./plain-server.ts", import.meta.url);

/** How to get what the NATS rows need. */
export const NATS_MISSING =
  "NATS was not measured: there is no nats-server on the PATH (Debian: apt-get install nats-server).";

export interface PlainServer {
  readonly port: number;
  /** All processes whose work a job is. */
  readonly processes: readonly Child[];
}

/** The executor behind an HTTP server, in one process. */
export async function startDirect(folder: string): Promise<PlainServer> {
  const direct = startOurs("direct", folder, plainServer, ["direct"]);
  return { port: Serving.parse(await direct.next()).port, processes: [direct] };
}

/** NATS request-reply: an HTTP gateway, the server, and the executor behind a subject. Null without a server here. */
export async function startNats(folder: string): Promise<PlainServer | null> {
  const program = onPath(PROGRAM);
  if (program === null) return null;
  const port = await freePort();
  const server = startProgram(PROGRAM, folder, [program, "-a", "127.0.0.1", "-p", String(port)]);
  await cameUp(server, () => accepts(port), UP_MS);
  const servers = `127.0.0.1:${port}`;
  const responder = startOurs("responder", folder, plainServer, ["responder", servers]);
  const gateway = startOurs("gateway", folder, plainServer, ["gateway", servers]);
  const [serving] = await Promise.all([gateway.next(), responder.next()]);
  return { port: Serving.parse(serving).port, processes: [gateway, server, responder] };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp({ port, host: "127.0.0.1" });
    const end = (accepted: boolean) => {
      socket.destroy();
      resolve(accepted);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}

function onPath(program: string): string | null {
  // Debian keeps servers in sbin, which is not on everybody's PATH.
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
  for (const folder of folders) {
    const file = join(folder, program);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // not here
    }
  }
  return null;
}
