import { closedLoop, type Load } from "./closed-loop.ts";

/** The load generator as a process of its own: takes one load per message, answers with what came of it. */

process.on("message", (load: Load) => {
  closedLoop(load).then(
    (loaded) => process.send?.({ ok: true, loaded }),
    (error: unknown) => process.send?.({ ok: false, detail: String(error) }),
  );
});
process.once("disconnect", () => process.exit());
