import { CLIENT_FRAME_VERSION, CLIENT_PROTOCOL } from "@gpux/protocol/client-frames";
import { type RawData, WebSocket } from "ws";
import { answerLoads } from "../../load/client.ts";
import { type Connection, closedLoop, type Turn } from "../../load/closed-loop.ts";

/** A load generator on session sockets: ready frames, each sent when the one before has its result. */

export interface SocketLoad {
  readonly ms: number;
  readonly lanes: readonly SocketLane[];
}

export interface SocketLane {
  readonly url: string;
  /** Signed for one upgrade. */
  readonly headers: Readonly<Record<string, string>>;
  readonly frames: readonly string[];
}

/** What is said of a job before its last word. */
const ON_ITS_WAY: ReadonlySet<unknown> = new Set(["accepted", "event"]);

answerLoads(({ lanes, ms }: SocketLoad) => closedLoop((index) => dial(lanes[index]), lanes.length, ms));

async function dial(lane: SocketLane | undefined): Promise<Connection> {
  if (lane === undefined) throw new RangeError("there is no such lane");
  const socket = new WebSocket(lane.url, CLIENT_PROTOCOL, {
    headers: lane.headers,
    perMessageDeflate: false,
  });
  const frames = lane.frames.values();
  let wanted: PromiseWithResolvers<string> | null = null;
  socket.on("message", (data: RawData) => {
    const text = String(data);
    if (!ON_ITS_WAY.has(JSON.parse(text).t)) wanted?.resolve(text);
  });
  const fail = (why: string) => wanted?.reject(new Error(why));
  socket.on("error", (error) => fail(error.message));
  socket.on("close", (code, reason) => fail(`the socket closed: ${code} ${reason}`));
  const next = () => {
    wanted = Promise.withResolvers();
    return wanted.promise;
  };
  const ready = await next();
  if (!isSaid(ready, "ready")) throw new Error(ready);
  return {
    async turn(): Promise<Turn | null> {
      const { value: frame } = frames.next();
      if (frame === undefined) return null;
      const answer = next();
      socket.send(frame);
      const said = await answer;
      return isSaid(said, "result") ? { ok: true } : { ok: false, sample: said };
    },
    close: () => socket.terminate(),
  };
}

function isSaid(text: string, t: string): boolean {
  const frame = JSON.parse(text);
  return frame.v === CLIENT_FRAME_VERSION && frame.t === t;
}
