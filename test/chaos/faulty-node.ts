import { createServer, type ServerResponse } from "node:http";
import { z } from "zod";

/** A JSON-RPC endpoint before a real one, that fails as real ones do. Which way is drawn from `random`. */
export interface FaultyNode {
  readonly url: string;
  /** How often each fault happened. */
  readonly faults: Map<string, number>;
  /** From now on it is honest. */
  heal(): void;
  close(): Promise<void>;
}

const Call = z.looseObject({ method: z.string(), id: z.unknown(), params: z.array(z.unknown()).default([]) });

export async function startFaultyNode(behind: string, random: () => number): Promise<FaultyNode> {
  const faults = new Map<string, number>();
  const hanging = new Set<ServerResponse>();
  let sick = true;
  const note = (name: string) => faults.set(name, (faults.get(name) ?? 0) + 1);
  const forward = async (body: string) => {
    const response = await fetch(behind, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    return await response.text();
  };
  const server = createServer(async (request, response) => {
    try {
      // A relayer that is killed hangs up in the middle.
      let body = "";
      for await (const chunk of request) body += String(chunk);
      const { method, id } = Call.parse(JSON.parse(body));
      const sends = method === "eth_sendRawTransaction";
      const dice = sick ? random() : 1;
      if (dice < 0.05) {
        note("429");
        response.writeHead(429).end("too many requests");
      } else if (dice < 0.08) {
        note("garbage");
        response.end("<html>gateway</html>");
      } else if (dice < 0.1) {
        note("limit");
        response.end(
          JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32005, message: "limit exceeded" } }),
        );
      } else if (sends && dice < 0.2) {
        note("time-out after broadcast");
        await forward(body);
        // The relayer hangs up first.
        hanging.add(response);
      } else if (sends && dice < 0.3) {
        note("dropped transaction");
        response.end(JSON.stringify({ jsonrpc: "2.0", id, result: `0x${"1".repeat(64)}` }));
      } else response.end(await forward(body));
    } catch {
      response.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("it has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    faults,
    heal: () => {
      sick = false;
    },
    close: async () => {
      for (const response of hanging) response.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
