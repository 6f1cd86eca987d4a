import { JobEvent, JobStatus, JobView, TERMINAL } from "@gpux/protocol/job";
import { abortedError, GpuxError, invalidResponse, jsonOf, networkError } from "./error.ts";
import { createEventParser, type StreamEvent } from "./event-stream.ts";
import { backoff, type Timing } from "./timing.ts";
import type { Transport } from "./transport.ts";

export interface EventOptions {
  /** Only events after this one. */
  readonly lastEventId?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The edge pings every 15 s; three missed ones are a dead connection. */
const SILENCE_MS = 45_000;
/** Cuts in a row, without one event between them, before the caller is told. */
const MAX_CUTS = 8;

/**
 * The journal of a job from its beginning (or after `lastEventId`) to its end. A cut connection, a deploy and a
 * stream that stops before the job's end are resumed by Last-Event-ID; a refusal is thrown. Who begins after the job's
 * end gets what came after it, which may be nothing.
 */
export async function* jobEvents(
  transport: Transport,
  timing: Timing,
  id: string,
  { lastEventId, signal }: EventOptions,
): AsyncGenerator<JobEvent> {
  const path = `/v1/jobs/${id}`;
  let last = lastEventId ?? 0;
  let ended = false;
  /** The job had ended before this connection was made: one that then brings nothing says that there is no more. */
  let over = false;
  for (let cuts = 0; ; cuts += 1) {
    const headers = { accept: "text/event-stream", ...(last > 0 ? { "last-event-id": String(last) } : {}) };
    let cause: unknown = null;
    let silent = true;
    try {
      const response = await transport.open({ method: "GET", path: `${path}/events`, headers, signal });
      for await (const raw of streamOf(response, timing, signal)) {
        const event = parseEvent(raw);
        // A resumed stream may repeat; progress passes by outside the journal and has no number of its own.
        if (event === null || (event.type !== "progress" && event.id <= last)) continue;
        last = Math.max(last, event.id);
        cuts = 0;
        silent = false;
        ended ||= isEnd(event);
        yield event;
      }
    } catch (error) {
      if (signal?.aborted) throw abortedError();
      if (error instanceof GpuxError && error.code !== "network") throw error;
      cause = error;
    }
    if (ended || (over && silent && cause === null)) return;
    if (cuts >= MAX_CUTS)
      throw cause instanceof GpuxError ? cause : networkError(cause ?? "the stream was cut", transport.url);
    await timing.sleep(backoff(cuts, timing), signal);
    // The end itself may lie before where the caller began, so the stream alone cannot tell it from a cut.
    if (cause === null) over = await hasEnded(transport, path, signal);
  }
}

async function hasEnded(
  transport: Transport,
  path: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const job = await transport.json({ method: "GET", path, signal }, JobView);
  return TERMINAL.has(job.status);
}

export function isEnd(event: JobEvent): boolean {
  const status = event.type === "status" ? JobStatus.safeParse(event.data.status) : null;
  return status?.success === true && TERMINAL.has(status.data);
}

/** `null` for an event of a kind that this client does not know: a newer edge may have more. */
function parseEvent(raw: StreamEvent): JobEvent | null {
  if (!JobEvent.shape.type.safeParse(raw.type).success) return null;
  const parsed = JobEvent.safeParse(jsonOf(raw.data));
  if (parsed.success) return parsed.data;
  throw invalidResponse("the event stream", parsed.error.issues[0]?.message ?? "not JSON", null);
}

async function* streamOf(
  response: Response,
  timing: Timing,
  signal: AbortSignal | undefined,
): AsyncGenerator<StreamEvent> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  const decoder = new TextDecoder();
  const parse = createEventParser();
  try {
    for (;;) {
      const chunk = await readWithin(reader, timing, signal);
      if (chunk === undefined) return;
      yield* parse(decoder.decode(chunk, { stream: true }));
    }
  } finally {
    // Also when the caller leaves its loop: the connection must not stay open behind it.
    await reader.cancel().catch(() => {});
  }
}

/** `undefined` at the stream's end, and when nothing at all came for too long. */
async function readWithin(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  timing: Timing,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  const arrived = new AbortController();
  const waits = signal === undefined ? arrived.signal : AbortSignal.any([arrived.signal, signal]);
  try {
    const silence = timing.sleep(SILENCE_MS, waits).then((): { value?: Uint8Array } => ({}));
    return (await Promise.race([reader.read(), silence])).value;
  } finally {
    arrived.abort();
  }
}
