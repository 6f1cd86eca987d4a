import { abortedError, GpuxError, invalidResponse, jsonOf, networkError } from "./error.ts";
import { createEventParser, type StreamEvent } from "./event-stream.ts";
import { backoff, type Timing } from "./timing.ts";
import type { Transport } from "./transport.ts";

export interface EventOptions {
  /** Only events after this one. */
  readonly lastEventId?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What this asks of a schema of the protocol. */
interface Schema<Value> {
  safeParse(value: unknown):
    | { readonly success: true; readonly data: Value }
    | {
        readonly success: false;
        readonly error: { readonly issues: readonly { readonly message: string }[] };
      };
}

interface JournalEvent {
  readonly id: number;
  readonly type: string;
}

/** What a journal's events are, and how its end is known. */
export interface Journal<Event extends JournalEvent> {
  /** Of the stream. */
  readonly path: string;
  readonly schema: Schema<Event>;
  /** Types that this client knows: a newer edge may have more. */
  readonly types: Schema<Event["type"]>;
  /** Passed on without a number of its own. */
  readonly isPassing: (event: Event) => boolean;
  readonly isEnd: (event: Event) => boolean;
  /** Asks the edge whether what the journal tells of is over. */
  readonly hasEnded: (signal: AbortSignal | undefined) => Promise<boolean>;
}

/** The edge pings every 15 s; three missed ones are a dead connection. */
const SILENCE_MS = 45_000;
/** Cuts in a row, without one event between them, before the caller is told. */
const MAX_CUTS = 8;

/**
 * A journal from its beginning (or after `lastEventId`) to its end. A cut connection, a deploy and a stream that stops
 * before the end are resumed by Last-Event-ID; a refusal is thrown. Who begins after the end gets what came after it,
 * which may be nothing.
 */
export async function* followJournal<Event extends JournalEvent>(
  transport: Transport,
  timing: Timing,
  journal: Journal<Event>,
  { lastEventId, signal }: EventOptions,
): AsyncGenerator<Event> {
  let last = lastEventId ?? 0;
  let ended = false;
  /** It had ended before this connection was made: one that then brings nothing says that there is no more. */
  let over = false;
  for (let cuts = 0; ; cuts += 1) {
    const headers = { accept: "text/event-stream", ...(last > 0 ? { "last-event-id": String(last) } : {}) };
    let cause: unknown = null;
    let silent = true;
    try {
      const response = await transport.open({ method: "GET", path: journal.path, headers, signal });
      for await (const raw of streamOf(response, timing, signal)) {
        const event = parseEvent(journal, raw);
        // A resumed stream may repeat.
        if (event === null || (!journal.isPassing(event) && event.id <= last)) continue;
        last = Math.max(last, event.id);
        cuts = 0;
        silent = false;
        ended ||= journal.isEnd(event);
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
    if (cause === null) over = await journal.hasEnded(signal);
  }
}

/** `null` for an event of a kind that this client does not know. */
function parseEvent<Event extends JournalEvent>(journal: Journal<Event>, raw: StreamEvent): Event | null {
  if (!journal.types.safeParse(raw.type).success) return null;
  const parsed = journal.schema.safeParse(jsonOf(raw.data));
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
