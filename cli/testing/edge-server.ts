import { createServer } from "node:http";
import { createScriptedEdge, type ScriptedEdge } from "@gpux/sdk/testing/scripted-edge";

/** The scripted edge on a port of this machine, for commands in a process of their own. */
export async function startEdge(): Promise<{ url: string; edge: ScriptedEdge; stop(): Promise<void> }> {
  let edge: ScriptedEdge | null = null;
  const server = createServer(async (incoming, outgoing) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of incoming) chunks.push(new Uint8Array(chunk));
    const body = Buffer.concat(chunks);
    const headers = new Headers();
    for (const [name, value] of Object.entries(incoming.headers))
      headers.set(name, [value].flat().join(", "));
    const method = incoming.method ?? "GET";
    const init = { method, headers, ...(body.length > 0 ? { body } : {}) };
    const answer = await edge?.fetch(`${url}${incoming.url}`, init).catch(() => null);
    // A scripted network failure.
    if (answer === null || answer === undefined) return void incoming.socket.destroy();
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers));
    for await (const part of answer.body ?? []) outgoing.write(part);
    outgoing.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  const url = `http://127.0.0.1:${address.port}`;
  edge = createScriptedEdge({ origin: url });
  return {
    url,
    edge,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
