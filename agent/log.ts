import { styleText } from "node:util";

export type Level = "info" | "warn" | "error";

/** One thing that happened: `event` is its stable name for machines, `text` is for people, `facts` are details. */
export interface LogEntry {
  readonly level: Level;
  readonly event: string;
  readonly text: string;
  readonly facts?: Readonly<Record<string, string | number | boolean | null>>;
}
export type Log = (entry: LogEntry) => void;

/** One JSON object per line, with the time in front. */
export function jsonLine(entry: LogEntry, at: Date): string {
  const { level, event, text, facts } = entry;
  return JSON.stringify({ at: at.toISOString(), level, event, text, ...facts });
}

const COLOURS = { info: "dim", warn: "yellow", error: "red" } as const;

/** `17:20:01  online    the edge welcomed this node`; facts are in the text already, where people need them. */
export function humanLine(entry: LogEntry, at: Date, colour: boolean): string {
  const time = at.toTimeString().slice(0, 8);
  const name = entry.event.padEnd(18);
  return colour
    ? `${styleText("dim", time, { validateStream: false })}  ${styleText(COLOURS[entry.level], name, { validateStream: false })} ${entry.text}`
    : `${time}  ${name} ${entry.text}`;
}
