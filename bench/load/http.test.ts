import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer as createTcpServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { closedLoop } from "./closed-loop.ts";
import { dialHttp, type HttpLoad } from "./http.ts";

const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const each of cleanUp.splice(0)) each();
});

const DONE = { status: 200, holds: "done" };
const load = ({ port, lanes, ms, answers }: HttpLoad) =>
  closedLoop((index) => dialHttp(port, lanes[index] ?? { once: [] }, answers), lanes.length, ms);

const post = (body: string) =>
  Buffer.from(`POST / HTTP/1.1\r\nhost: bench\r\ncontent-length: ${body.length}\r\n\r\n${body}`);

async function portOf(server: ReturnType<typeof createTcpServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanUp.push(() => server.close());
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}

describe("a closed loop over HTTP", () => {
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
    const lanes = [{ once: [[post("a")], [post("b")], [post("c")]] }];
    const loaded = await load({ port, lanes, ms: 60_000, answers: [DONE] });
    expect(seen).toEqual(["a", "b", "c"]);
    expect(connections).toBe(1);
    expect(loaded).toMatchObject({ turns: 3, errors: 0, sample: "" });
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
    const loaded = await load({
      port,
      lanes: [{ once: [[post("a")], [post("b")]] }],
      ms: 60_000,
      answers: [DONE],
    });
    expect(loaded).toMatchObject({ turns: 1, errors: 1, sample: "402 pay" });
    expect(loaded.latenciesUs).toHaveLength(1);
  });

  test("a server that hangs up ends the run with an error", async () => {
    const port = await portOf(createTcpServer((socket) => socket.on("data", () => socket.end())));
    const lanes = [{ again: [post("a")] }];
    await expect(load({ port, lanes, ms: 60_000, answers: [DONE] })).rejects.toThrow(/closed/);
  });

  test("a turn of several requests sends each after the answer before, and tells when the first came", async () => {
    const seen: string[] = [];
    const server = createServer((request, response) => {
      seen.push(request.url ?? "");
      response.statusCode = request.url === "/asked" ? 202 : 200;
      response.setHeader("content-length", 8);
      response.end("donedone");
    });
    const port = await portOf(server);
    const get = (path: string) => Buffer.from(`GET ${path} HTTP/1.1\r\nhost: bench\r\n\r\n`);
    const loaded = await load({
      port,
      lanes: [{ once: [[get("/asked"), get("/result")]] }],
      ms: 60_000,
      answers: [
        { status: 202, holds: "" },
        { ...DONE, times: 2 },
      ],
    });
    expect(seen).toEqual(["/asked", "/result"]);
    expect(loaded).toMatchObject({ turns: 1, errors: 0 });
    expect(loaded.firstUs[0]).toBeLessThanOrEqual(loaded.latenciesUs[0] ?? 0);
  });

  test("an answer that holds the expected text too seldom is no good one", async () => {
    const server = createServer((_request, response) => {
      response.setHeader("content-length", 4);
      response.end("done");
    });
    const port = await portOf(server);
    const loaded = await load({
      port,
      lanes: [{ once: [[post("a")]] }],
      ms: 60_000,
      answers: [{ ...DONE, times: 2 }],
    });
    expect(loaded).toMatchObject({ turns: 0, errors: 1, sample: "200 done" });
  });
});
