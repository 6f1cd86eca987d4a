import type { z } from "zod";

const PING_MS = 15_000;
/** A reader this far behind is cut; it comes back with Last-Event-ID. */
const BACKLOG_LIMIT = 1_000;

/** Where the events go on after a socket that was closed for this reason, from the last number; null: nowhere. */
type Follow = (reason: string, last: number) => Promise<WebSocket | null>;

/**
 * Events of a job or a lease, from the Lease's socket to server-sent events. The Worker holds the reader's connection,
 * so that a reader keeps no object awake. Ends with what it tells of, or cut: the reader asks again after its last event.
 */
export function eventStream(
  first: WebSocket,
  schema: z.ZodType<{ readonly id: number; readonly type: string }>,
  follow: Follow = async () => null,
): Response {
  const text = new TextEncoder();
  let ping: ReturnType<typeof setInterval> | null = null;
  let socket = first;
  let last = 0;
  let isOver = false;
  const close = () => {
    isOver = true;
    clearInterval(ping);
    socket.close(1000);
  };
  const stream = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const end = () => {
          isOver = true;
          clearInterval(ping);
          try {
            controller.close();
          } catch {
            // Closed already: the reader went first.
          }
        };
        const write = (chunk: string) => {
          if ((controller.desiredSize ?? 0) > -BACKLOG_LIMIT) controller.enqueue(text.encode(chunk));
          else {
            close();
            end();
          }
        };
        const read = (from: WebSocket) => {
          socket = from;
          from.addEventListener("message", ({ data }) => {
            const event = schema.parse(JSON.parse(String(data)));
            last = event.id;
            write(`id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
          });
          from.addEventListener("close", async ({ reason }) => {
            from.close(1000);
            const next = isOver ? null : await follow(reason, last).catch(() => null);
            if (next === null) return end();
            // The reader may have gone meanwhile.
            if (isOver) return next.close(1000);
            read(next);
          });
          from.addEventListener("error", end);
          from.accept();
        };
        read(first);
        write("retry: 1000\n\n");
        ping = setInterval(() => write(": ping\n\n"), PING_MS);
      },
      cancel: close,
    },
    new CountQueuingStrategy({ highWaterMark: 1 }),
  );
  return new Response(stream, {
    headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store" },
  });
}
