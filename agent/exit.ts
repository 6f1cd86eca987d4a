import type { LinkEnd } from "./link/machine.ts";

/** Exit codes of `gpux-agent run`; a supervisor such as systemd should restart on 1 alone. */
export const EXIT = {
  stopped: 0,
  /** A bug or a failing disk. */
  failed: 1,
  /** Command line or config. */
  usage: 2,
  /** The password does not open the keystore, or the edge does not let this key speak. */
  forbidden: 3,
  /** No GPU device, not even the software one, works here. */
  noDevice: 4,
  /** Another agent runs with this key or on this folder. */
  replaced: 5,
  /** The edge and this agent do not understand each other: update. */
  badFrame: 6,
  /** A second Ctrl-C. */
  forced: 130,
} as const;

export interface AgentEnd {
  readonly exitCode: number;
  readonly detail: string;
}

/** Why the agent did not start. */
export class AgentStartError extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.name = "AgentStartError";
    this.exitCode = exitCode;
  }
}

/** How a control link's end ends the agent. */
export const END_CODES: Record<LinkEnd["reason"], number> = {
  stopped: EXIT.stopped,
  replaced: EXIT.replaced,
  forbidden: EXIT.forbidden,
  bad_frame: EXIT.badFrame,
  gone: EXIT.forbidden,
};
export const END_TEXTS: Record<LinkEnd["reason"], string> = {
  stopped: "The agent stopped.",
  replaced: "Another agent took over with the same key; this one stops.",
  forbidden: "The edge does not let this key speak.",
  bad_frame: "The edge and this agent do not understand each other; update the agent.",
  gone: "The edge no longer knows this node.",
};
