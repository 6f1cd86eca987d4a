import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { sha256Hex } from "@gpux/protocol/canonical";
import { FRAME_VERSION, FromLease, FromNode, type ToLease, type ToNode } from "@gpux/protocol/frames";
import { verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import type { LeaseId } from "@gpux/protocol/ids";
import { encodeFunctionResult } from "viem";
import { type WebSocket, WebSocketServer } from "ws";
import { z } from "zod";
import { NODE, place } from "./fixtures.ts";
import { LEASE_STATUS } from "./leases/chain.ts";

/**
 * The outside of an agent, for its tests: sockets that the test speaks on, an object store, and a chain that knows one
 * escrow. It checks signatures and schemas as the edge does, and decides nothing by itself.
 */
export interface ScriptedEdge {
  readonly url: string;
  readonly objects: Map<string, Uint8Array>;
  /** Paths of upgrades, in order; one entry per dial that was let in. */
  readonly dials: string[];
  chain: { status: (typeof LEASE_STATUS)[number]; funded: bigint; reads: number };
  /** Outputs that came through a lease, by their path. */
  readonly outputs: Map<string, Uint8Array>;
  /** Those are answered with this status instead. */
  refuseOutputsWith: number | null;
  /** Dials are answered with this status instead. */
  refuseWith: number | null;
  /** How far its clock is ahead of the test's, in ms. */
  aheadMs: number;
  control(): Promise<ControlSocket>;
  lease(id: LeaseId): Promise<LeaseSocket>;
  putObject(bytes: Uint8Array): Promise<string>;
  close(): Promise<void>;
}

type Said<To> = To extends unknown ? Omit<To, "v" | "seq" | "ack"> : never;

/** One connection as the edge has it. */
export interface ScriptedSocket<From, To> {
  /** The next frame of type `t`; acknowledgements and heartbeats are passed over. */
  next<T extends From extends { t: infer Name } ? Name : never>(t: T): Promise<Extract<From, { t: T }>>;
  say(seq: number, ack: number, body: Said<To>): void;
  closed: Promise<number>;
  close(code: number): void;
  /** Cuts the connection as a lost network does. */
  cut(): void;
}

type ControlSocket = ScriptedSocket<z.output<typeof FromNode>, z.input<typeof ToNode>>;
type LeaseSocket = ScriptedSocket<z.output<typeof FromLease>, z.input<typeof ToLease>>;

/** Values that come at their own time, for whoever waits. */
class Stream<Value> {
  readonly #values: Value[] = [];
  readonly #waiting: ((value: Value) => void)[] = [];

  push(value: Value): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#values.push(value);
    else next(value);
  }

  take(): Promise<Value> {
    const value = this.#values.shift();
    if (value !== undefined) return Promise.resolve(value);
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }
}

function scriptedSocket<From extends { t: string }, To>(
  socket: WebSocket,
  parse: (value: unknown) => From,
): ScriptedSocket<From, To> {
  const frames = new Stream<From>();
  socket.on("message", (data) => {
    const text = String(data);
    if (text === "ping") socket.send("pong");
    else frames.push(parse(JSON.parse(text)));
  });
  const isOf = <T extends string>(frame: From, t: T): frame is Extract<From, { t: T }> => frame.t === t;
  return {
    async next(t) {
      for (;;) {
        const frame = await frames.take();
        if (isOf(frame, t)) return frame;
        if (frame.t !== "ack" && frame.t !== "progress" && frame.t !== "log")
          throw new Error(
            `waited for ${t}, got ${JSON.stringify(frame, (_, v) => (typeof v === "bigint" ? `${v}` : v))}`,
          );
      }
    },
    say: (seq, ack, body) => socket.send(JSON.stringify({ v: FRAME_VERSION, seq, ack, ...body })),
    closed: new Promise((resolve) => {
      socket.on("close", resolve);
    }),
    close: (code) => socket.close(code),
    cut: () => socket.terminate(),
  };
}

const RpcCall = z.object({ id: z.union([z.int(), z.string()]), method: z.string() });

export async function startScriptedEdge(): Promise<ScriptedEdge> {
  const sockets = new WebSocketServer({ noServer: true });
  const controls = new Stream<ControlSocket>();
  const leases = new Map<string, Stream<LeaseSocket>>();
  const leaseStream = (path: string) => {
    const stream = leases.get(path) ?? new Stream<LeaseSocket>();
    leases.set(path, stream);
    return stream;
  };
  const connections = new Set<Socket>();
  const server: Server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const sha256 = /^\/v1\/objects\/([0-9a-f]{64})$/.exec(request.url ?? "")?.[1];
    if (request.url === "/rpc") {
      response.setHeader("content-type", "application/json").end(answerRpc(edge, body));
      return;
    }
    const isOutput = /^\/v1\/agent\/leases\/\w+\/jobs\/\w+\/outputs\/[0-9]+\?/.test(request.url ?? "");
    if (sha256 === undefined && !isOutput) {
      response.writeHead(404).end();
      return;
    }
    if (!(await isSigned(request.method ?? "", request.url ?? "", request.headers, body))) {
      response.writeHead(401, { date: date() }).end();
      return;
    }
    if (sha256 === undefined) {
      if (edge.refuseOutputsWith === null) edge.outputs.set(request.url ?? "", body);
      response.writeHead(edge.refuseOutputsWith ?? 201).end();
      return;
    }
    if (request.method === "PUT") {
      const right = (await sha256Hex(body)) === sha256;
      if (right) edge.objects.set(sha256, body);
      response.writeHead(right ? 201 : 422).end();
      return;
    }
    const found = edge.objects.get(sha256);
    response.writeHead(found === undefined ? 404 : 200).end(found);
  });
  server.on("connection", (socket) => {
    connections.add(socket);
    socket.on("close", () => connections.delete(socket));
  });
  server.on("upgrade", async (request, socket, head) => {
    const path = request.url ?? "";
    const signed = await isSigned("GET", path, request.headers, Buffer.alloc(0));
    if (edge.refuseWith !== null || !signed) {
      socket.end(
        `HTTP/1.1 ${edge.refuseWith ?? 401} Refused\r\ndate: ${date()}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`,
      );
      return;
    }
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      edge.dials.push(path);
      // Listens at once: the agent greets before any test has asked for the socket.
      if (path === "/v1/agent/connect")
        controls.push(scriptedSocket(accepted, (value) => FromNode.parse(value)));
      else leaseStream(path).push(scriptedSocket(accepted, (value) => FromLease.parse(value)));
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  const host = `127.0.0.1:${port}`;

  const date = () => new Date(Date.now() + edge.aheadMs).toUTCString();

  async function isSigned(
    method: string,
    path: string,
    headers: Record<string, string | string[] | undefined>,
    body: Buffer,
  ): Promise<boolean> {
    const plain = new Headers();
    for (const [name, value] of Object.entries(headers))
      if (typeof value === "string") plain.set(name, value);
    const request = { method, url: `http://${host}${path}`, headers: plain, body };
    const policy = { now: Date.now() + edge.aheadMs, audience: [host], chainId: place.chainId };
    const verified = await verifyRequest(request, policy);
    return verified.ok && verified.address === NODE;
  }

  const edge: ScriptedEdge = {
    url: `http://${host}`,
    objects: new Map(),
    dials: [],
    outputs: new Map(),
    refuseOutputsWith: null,
    chain: { status: "open", funded: 1_000_000_000n, reads: 0 },
    refuseWith: null,
    aheadMs: 0,
    control: () => controls.take(),
    lease: (id) => leaseStream(`/v1/agent/leases/${id}`).take(),
    async putObject(bytes) {
      const sha256 = await sha256Hex(bytes);
      edge.objects.set(sha256, bytes);
      return sha256;
    },
    close() {
      for (const socket of connections) socket.destroy();
      return new Promise((resolve) => {
        server.close(() => resolve());
      });
    },
  };
  return edge;
}

function answerRpc(edge: ScriptedEdge, body: Buffer): string {
  const { id, method } = RpcCall.parse(JSON.parse(body.toString()));
  if (method === "eth_chainId")
    return JSON.stringify({ jsonrpc: "2.0", id, result: `0x${place.chainId.toString(16)}` });
  edge.chain.reads += 1;
  const { status, funded } = edge.chain;
  const result = encodeFunctionResult({
    abi: leaseEscrowAbi,
    functionName: "leases",
    result: [funded, 0n, 1, 0, LEASE_STATUS.indexOf(status), false],
  });
  return JSON.stringify({ jsonrpc: "2.0", id, result });
}
