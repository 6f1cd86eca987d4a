import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import { refuse } from "./refusal.ts";
import type { Answer } from "./route.ts";

const digest = (text: string) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));

/**
 * The relayer's metrics in Prometheus text, for who sends `Authorization: Bearer <METRICS_TOKEN>`. For everybody else,
 * and where no token is set, there is nothing here.
 */
export async function metrics(request: Request, env: ObjectEnv): Promise<Answer> {
  const { metricsToken } = configOf(env);
  const given = /^Bearer ([!-~]{1,512})$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (metricsToken === null || given === undefined) return refuse("not_found");
  // Hashed first, so that neither length nor content tells by its time.
  const [right, theirs] = await Promise.all([digest(metricsToken), digest(given)]);
  if (!crypto.subtle.timingSafeEqual(right, theirs)) return refuse("not_found");
  const text = await env.RELAYER.metrics();
  return new Response(text, {
    headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8", "cache-control": "no-store" },
  });
}
