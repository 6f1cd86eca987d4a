import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { ExecutorDescription, FunctionJob } from "../executor.ts";
import { ChildMessage, type ChildOutcome, type ParentMessage } from "./messages.ts";

/** What Dawn and the drivers need to find a display, a home for their caches and each other; no secret is among them. */
const PASSED_ON = [
  "PATH",
  "HOME",
  "LANG",
  "TMPDIR",
  "DISPLAY",
  "WAYLAND_DISPLAY",
  "XDG_RUNTIME_DIR",
  "XDG_CACHE_HOME",
  "LD_LIBRARY_PATH",
  "VK_ICD_FILENAMES",
  "VK_DRIVER_FILES",
  "MESA_VK_DEVICE_SELECT",
  "CUDA_VISIBLE_DEVICES",
  "NVIDIA_VISIBLE_DEVICES",
  "NVIDIA_DRIVER_CAPABILITIES",
  "SystemRoot",
  "LOCALAPPDATA",
  "APPDATA",
  "TEMP",
];

const START_MS = 30_000;

/** How a child's run of a job ended: its own answer, what it had done when it was paused, or its death. */
export type ChildEnd =
  | { t: "answered"; outcome: ChildOutcome }
  | { t: "paused"; state: Uint8Array }
  | { t: "died" };

/** One life of the child. After `kill`, or once it has died by itself, it is of no more use. */
export type GpuChild = {
  description: ExecutorDescription;
  alive(): boolean;
  run(job: FunctionJob, progress: (fraction: number, note?: string) => void): Promise<ChildEnd>;
  /** Asks for the end of the job under way between two of its dispatches. */
  pause(): void;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
};

export type StartedChild =
  | { ok: true; child: GpuChild }
  | { ok: false; reason: "no_adapter" | "died" | "aborted" };

/**
 * Starts a child and waits until it holds a device. `environment` comes on top of the allow-list. An abort of
 * `signal` kills the child while it starts, and only then.
 */
export async function startChild(
  environment: Record<string, string>,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<StartedChild> {
  const passed = PASSED_ON.flatMap((name) =>
    process.env[name] === undefined ? [] : [[name, process.env[name]]],
  );
  const child = fork(fileURLToPath(new URL("./child.ts", import.meta.url)), {
    env: { ...Object.fromEntries(passed), ...environment },
    // The parent's own flags (an inspector's port, a test runner's loaders) are not the child's.
    execArgv: ["--disable-warning=ExperimentalWarning", "--max-old-space-size=1024"],
    serialization: "advanced",
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  const gone = once(child, "exit");
  for (const stream of [child.stdout, child.stderr]) {
    if (stream) createInterface({ input: stream }).on("line", (line) => log(line.slice(0, 2_000)));
  }
  const listeners = new Set<(message: ChildMessage | "gone") => void>();
  const notify = (message: ChildMessage | "gone") => {
    for (const listener of [...listeners]) listener(message);
  };
  let alive = true;
  child.on("message", (raw: unknown) => {
    const message = ChildMessage.safeParse(raw);
    if (message.success) notify(message.data);
    else {
      log(`the GPU process sent what it must not (${message.error.issues[0]?.message}); it is killed`);
      child.kill("SIGKILL");
    }
  });
  // "error" stands for a fork that failed, and for a message that could not be sent to a dying child.
  child.on("error", (error) => log(`GPU process: ${error.message}`));
  const end = () => {
    if (!alive) return;
    alive = false;
    notify("gone");
  };
  child.once("exit", end);
  child.once("disconnect", () => child.kill("SIGKILL"));

  const kill = async () => {
    end();
    child.kill("SIGKILL");
    if (child.pid !== undefined) await gone;
  };
  const first = await firstWord(child, listeners, signal);
  if (first === "aborted" || first === "gone" || first.t !== "ready") {
    await kill();
    const reason =
      first === "aborted" ? first : first !== "gone" && first.t === "no_adapter" ? first.t : "died";
    return { ok: false, reason };
  }
  let jobs = 0;
  const run: GpuChild["run"] = (job, progress) => {
    jobs += 1;
    const id = jobs;
    return new Promise((resolve) => {
      const settle = (end: ChildEnd) => {
        listeners.delete(listener);
        resolve(end);
      };
      const listener = (message: ChildMessage | "gone") => {
        if (message === "gone") settle({ t: "died" });
        else if (message.t === "progress" && message.id === id) progress(message.fraction, message.note);
        else if (message.t === "paused" && message.id === id) settle({ t: "paused", state: message.state });
        else if (message.t === "done" && message.id === id)
          settle({ t: "answered", outcome: message.outcome });
      };
      if (!alive) return settle({ t: "died" });
      listeners.add(listener);
      const message: ParentMessage = { t: "run", id, job };
      child.send(message);
    });
  };
  const pause = () => {
    const message: ParentMessage = { t: "pause", id: jobs };
    if (alive) child.send(message);
  };
  return { ok: true, child: { description: first.description, alive: () => alive, run, pause, kill } };
}

function firstWord(
  child: ChildProcess,
  listeners: Set<(message: ChildMessage | "gone") => void>,
  signal: AbortSignal,
): Promise<ChildMessage | "gone" | "aborted"> {
  return new Promise((resolve) => {
    const settle = (word: ChildMessage | "gone" | "aborted") => {
      clearTimeout(tooLong);
      signal.removeEventListener("abort", aborted);
      listeners.delete(settle);
      child.off("error", failed);
      resolve(word);
    };
    const aborted = () => settle("aborted");
    const failed = () => settle("gone");
    const tooLong = setTimeout(() => settle("gone"), START_MS);
    listeners.add(settle);
    child.once("error", failed);
    signal.addEventListener("abort", aborted);
    if (signal.aborted) aborted();
  });
}
