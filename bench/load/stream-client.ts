import { answerLoads } from "./client.ts";
import { closedLoop } from "./closed-loop.ts";
import { dialStream, type StreamLoad } from "./stream.ts";

/** The load generator of large answers. */

answerLoads((load: StreamLoad) => closedLoop((index) => dialStream(load, index), load.lanes.length, load.ms));
