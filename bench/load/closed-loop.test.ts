import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer as createTcpServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { closedLoop } from "./closed-loop.ts";

const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const each of cleanUp.splice(0)) each();
});

const post = (body: string) =>
  Buffer.from(`POST / HTTP/1.1\r\nhost: bench\r\ncontent-length: ${body.length}\r\n\r\n${body}`);

async function portOf(server: ReturnType<typeof createTcpServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanUp.push(() => server.close());
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}

describe("closed loop", () => {
  test("sends every request of a lane once, in order, on one connection", async () => {
    const seen: string[] = [];
    let connections = 0;
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        seen.push(body);
        response.setHeader("content-length", 4);
        response.end("done");
      });
    });
    server.on("connection", () => {
      connections += 1;
    });
    const port = await portOf(server);
    const lanes = [{ once: [post("a"), post("b"), post("c")] }];
    const loaded = await closedLoop({ port, lanes, ms: 60_000, expect: "done" });
    expect(seen).toEqual(["a", "b", "c"]);
    expect(connections).toBe(1);
    expect(loaded).toMatchObject({ jobs: 3, errors: 0, sample: "" });
    expect(loaded.latenciesUs).toHaveLength(3);
  });

  test("counts what is no good answer as an error, shows the first, and leaves it out of the latencies", async () => {
    const answers = [
      "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
      "HTTP/1.1 402 No\r\nContent-Length: 3\r\n\r\npay",
    ];
    const server = createTcpServer((socket) => {
      cleanUp.push(() => socket.destroy());
      // Each answer in two pieces: bytes come as the network likes.
      socket.on("data", () => {
        const answer = answers.shift() ?? "";
        socket.write(answer.slice(0, 20), () => socket.write(answer.slice(20)));
      });
    });
    const port = await portOf(server);
    const loaded = await closedLoop({
      port,
      lanes: [{ once: [post("a"), post("b")] }],
      ms: 60_000,
      expect: "done",
    });
    expect(loaded).toMatchObject({ jobs: 1, errors: 1, sample: "402 pay" });
    expect(loaded.latenciesUs).toHaveLength(1);
  });

  test("a server that hangs up ends the run with an error", async () => {
    const port = await portOf(createTcpServer((socket) => socket.on("data", () => socket.end())));
    const lanes = [{ again: post("a") }];
    await expect(closedLoop({ port, lanes, ms: 60_000, expect: "" })).rejects.toThrow(/closed/);
  });
});
