import { plainWork, ready, serve } from "./job-server.ts";

/** An HTTP server in front of the executor. */

const work = await plainWork();
ready(await serve(async (_request, body) => ({ status: 200, body: await work(body) })));
