/** One event of a `text/event-stream` (WHATWG HTML section 9.2.6). */
export interface StreamEvent {
  readonly id: string | null;
  readonly type: string;
  readonly data: string;
}

/** An event longer than this is no event of ours; UTF-16 units. */
const LONGEST_EVENT = 1 << 20;

/**
 * A push parser: give it text as it comes, it returns the events that are complete. Comments (`: ping`) give none.
 * Throws a `RangeError` when an event does not end.
 */
export function createEventParser(): (chunk: string) => StreamEvent[] {
  let rest = "";
  let id: string | null = null;
  let type = "";
  let data: string[] = [];
  let size = 0;

  function field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") data.push(value);
    else if (name === "event") type = value;
    else if (name === "id" && !value.includes("\0")) id = value;
  }

  return (chunk) => {
    const events: StreamEvent[] = [];
    const text = rest + chunk;
    // A trailing CR may be half of a CRLF whose LF is still to come.
    const lines = text.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      size += line.length;
      if (line !== "") {
        field(line);
      } else {
        if (data.length > 0) events.push({ id, type: type || "message", data: data.join("\n") });
        type = "";
        data = [];
        size = 0;
      }
    }
    if (size + rest.length > LONGEST_EVENT) throw new RangeError("an event of the stream does not end");
    return events;
  };
}
