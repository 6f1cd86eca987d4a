import { startAgent } from "@gpux/agent/agent";
import { AgentConfig } from "@gpux/agent/config";
import { humanLine } from "@gpux/agent/log";
import { z } from "zod";
import { createToldExecutor } from "./told-executor.ts";

/**
 * An agent whose jobs last until they are told to end, as a process that can be killed: the first message is what it
 * runs with, the others are its owner's and the executor's orders. It sends what its executor saw.
 */
export const Setup = z.strictObject({
  key: z.templateLiteral(["0x", z.string()]),
  stateDir: z.string(),
  config: z.unknown(),
});
export type Setup = z.infer<typeof Setup>;
export const Order = z.union([
  z.strictObject({ end: z.array(z.int()) }),
  z.strictObject({ claim: z.int() }),
  z.strictObject({ drain: z.int() }),
]);
export type Order = z.infer<typeof Order>;

async function serve(message: unknown): Promise<void> {
  const { key, stateDir, config } = Setup.parse(message);
  const executor = createToldExecutor((sight) => process.send?.(sight));
  const log = (entry: Parameters<typeof humanLine>[0]) => console.log(humanLine(entry, new Date(), false));
  const agent = await startAgent({ key, stateDir, config: AgentConfig.parse(config), log, executor });
  process.on("message", (text) => {
    const order = Order.parse(text);
    if ("end" in order) executor.end(order.end);
    else if ("claim" in order) agent.claim(order.claim);
    else void agent.drain(order.drain);
  });
  process.exit((await agent.ended).exitCode);
}

if (import.meta.main) {
  process.once("message", (message) => {
    serve(message).catch((error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  });
  process.once("disconnect", () => process.exit());
}
