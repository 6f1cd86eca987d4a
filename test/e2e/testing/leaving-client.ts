import { request as sendRequest } from "node:http";

/** How long after its last byte a request is left alone: before the edge has read it, while it works, about when it answers. */
const LEAVES_AFTER_MS = [0, 10, 100];

/**
 * A client that goes away: each different request (method, path, Idempotency-Key) is sent in full and its connection
 * destroyed, once for each of the moments above, before it may be answered. `left` names those that were left.
 */
export function leavingClient(): { readonly fetch: typeof fetch; readonly left: string[] } {
  const left: string[] = [];
  const counts = new Map<string, number>();
  return {
    left,
    async fetch(input, init) {
      const request = new Request(input, init);
      const { method, headers, url } = request;
      const { pathname } = new URL(url);
      const key = `${method} ${pathname} ${headers.get("idempotency-key") ?? ""}`;
      const count = counts.get(key) ?? 0;
      counts.set(key, count + 1);
      const after = LEAVES_AFTER_MS[count];
      if (after === undefined) return fetch(request);
      left.push(`${method} ${pathname}`);
      await leave(request, after);
      throw new TypeError(`the client left ${method} ${pathname}`);
    },
  };
}

async function leave(request: Request, afterMs: number): Promise<void> {
  const body = Buffer.from(await request.arrayBuffer());
  const headers = Object.fromEntries(request.headers);
  await new Promise<void>((resolve, reject) => {
    const sending = sendRequest(request.url, { method: request.method, headers, agent: false });
    sending.on("response", (response) => response.resume());
    sending.on("error", () => undefined);
    sending.on("close", resolve);
    sending.on("finish", () => setTimeout(() => sending.destroy(), afterMs));
    setTimeout(() => reject(new Error(`${request.url} was never sent`)), 30_000).unref();
    sending.end(body);
  });
}
