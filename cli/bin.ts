#!/usr/bin/env node
import { main } from "./program.ts";
import { processTerminal } from "./terminal.ts";

// A reader that goes away (`gpux jobs events | head`) is no error of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

process.exitCode = await main(process.argv.slice(2), processTerminal());
