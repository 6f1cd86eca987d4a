import { answerLoads } from "./client.ts";
import { closedLoop } from "./closed-loop.ts";
import { dialHttp, type HttpLoad } from "./http.ts";

/** The load generator of all that is asked over HTTP. */

answerLoads(({ port, lanes, ms, answers }: HttpLoad) =>
  closedLoop((index) => dialHttp(port, lanes[index] ?? { once: [] }, answers), lanes.length, ms),
);
