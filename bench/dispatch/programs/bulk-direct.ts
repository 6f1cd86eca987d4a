import { createEchoExecutor, createExecution } from "../echo.ts";
import { preparationOf, ready, serve } from "./job-server.ts";

/** An HTTP server in front of the executor, whose answer is the job's large output. */

const run = createExecution(await preparationOf("bulk"), createEchoExecutor());
ready(
  await serve(async (_request, body) => {
    const executed = await run(body);
    const [output] = executed.t === "done" ? executed.outputs : [];
    return output === undefined
      ? { status: 500, body: JSON.stringify(executed) }
      : { status: 200, body: output.bytes, contentType: output.contentType };
  }),
);
