import { connect, createServer, type Socket } from "node:net";
import { WebSocket, WebSocketServer } from "ws";
import { ready } from "./job-server.ts";

/**
 * A TCP port carried over one WebSocket that is dialled from behind:
 *   front            where connections come in, and the WebSocket's server; says its port, then the WebSocket's
 *   back URL PORT    dials the WebSocket, and PORT for each connection
 * A message is a connection's number (4 bytes) and its bytes; without bytes the connection has ended.
 */

const HEAD_BYTES = 4;

function carry(tunnel: WebSocket, sockets: Map<number, Socket>, id: number, socket: Socket): void {
  sockets.set(id, socket);
  socket.setNoDelay(true);
  const send = (bytes: Uint8Array) => {
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32BE(id);
    tunnel.send(Buffer.concat([head, bytes]));
  };
  socket.on("data", send);
  // Its 'close' follows, and tells the other side.
  socket.on("error", () => {});
  socket.on("close", () => {
    if (sockets.delete(id)) send(Buffer.alloc(0));
  });
}

function receive(tunnel: WebSocket, sockets: Map<number, Socket>, unknown: (id: number) => Socket | null) {
  tunnel.on("message", (message: Buffer) => {
    const id = message.readUInt32BE(0);
    const bytes = message.subarray(HEAD_BYTES);
    const socket = sockets.get(id) ?? (bytes.length === 0 ? null : unknown(id));
    if (bytes.length > 0) return void socket?.write(bytes);
    sockets.delete(id);
    socket?.end();
  });
}

async function listening(server: {
  address(): ReturnType<ReturnType<typeof createServer>["address"]>;
  once(event: "listening", listener: () => void): unknown;
}): Promise<number> {
  await new Promise<void>((resolve) => server.once("listening", () => resolve()));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return address.port;
}

const [role, url, port] = process.argv.slice(2);
const sockets = new Map<number, Socket>();
if (role === "front") {
  const tunnels = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  ready(await listening(tunnels));
  const [tunnel] = await new Promise<[WebSocket]>((resolve) =>
    tunnels.once("connection", (socket) => resolve([socket])),
  );
  receive(tunnel, sockets, () => null);
  let ids = 0;
  const front = createServer((socket) => carry(tunnel, sockets, ids++, socket));
  front.listen(0, "127.0.0.1");
  ready(await listening(front));
} else {
  const tunnel = new WebSocket(url ?? "", { perMessageDeflate: false });
  await new Promise((resolve, reject) => tunnel.once("open", resolve).once("error", reject));
  receive(tunnel, sockets, (id) => {
    const socket = connect({ host: "127.0.0.1", port: Number(port) });
    carry(tunnel, sockets, id, socket);
    return socket;
  });
  ready(0);
}
