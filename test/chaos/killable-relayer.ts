import { type ChildProcess, spawn } from "node:child_process";
import { openSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";

const Ready = z.looseObject({ url: z.url() });

/** The relayer's Worker in a process that can be killed; calls wait while it is down, until `signal` says to stop. */
export class KillableRelayer {
  readonly #options: string;
  readonly #signal: AbortSignal;
  readonly #log: number;
  #child: ChildProcess | undefined;
  #url: Promise<string>;

  /** `storage`: a folder for its tables and for `relayer.log`. */
  constructor(storage: string, bindings: Record<string, unknown>, signal: AbortSignal) {
    this.#options = JSON.stringify({ storage, bindings });
    this.#signal = signal;
    this.#log = openSync(join(storage, "relayer.log"), "a");
    this.#url = this.#start();
  }

  #start(): Promise<string> {
    const url = this.#launch();
    // Whoever needs it finds out by awaiting it; nobody may.
    url.catch(() => undefined);
    return url;
  }

  async #launch(): Promise<string> {
    const program = fileURLToPath(new URL("./relayer-process.ts", import.meta.url));
    // A group of its own, so that workerd dies with it. The open pipe tells the child that we live.
    const child = spawn(process.execPath, [program, this.#options], {
      stdio: ["pipe", "pipe", this.#log],
      detached: true,
    });
    this.#child = child;
    if (child.stdout === null) throw new Error("the relayer has no output");
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    child.once("exit", () => reject(new Error("the relayer ended before it was ready; see relayer.log")));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const ready = line.startsWith("{") ? Ready.safeParse(JSON.parse(line)) : undefined;
      if (ready?.success) resolve(ready.data.url);
    });
    return await promise;
  }

  /** @throws when it does not start. */
  async ready(): Promise<void> {
    await this.#url;
  }

  /** @throws when the run is over, and nothing else: an answer that a kill took is asked for again. */
  async call(method: string, ...args: unknown[]): Promise<unknown> {
    for (;;) {
      try {
        const body = JSON.stringify({ method, args });
        const response = await fetch(await this.#url, { method: "POST", body, signal: this.#signal });
        if (response.ok) return await response.json();
      } catch {
        // It was killed under us.
      }
      await pause(100, undefined, { signal: this.#signal });
    }
  }

  /** As a power cut. */
  kill(): void {
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    process.kill(-child.pid, "SIGKILL");
  }

  async restart(): Promise<void> {
    this.kill();
    this.#url = this.#start();
    await this.#url;
  }
}
