import { z } from "zod";

/** For tests: the Worker's way to its node, made unreliable by method. The chain behind it is the real one. */
const real = globalThis.fetch;
type Fault = (forward: () => Promise<Response>, body: string) => Promise<Response>;
const faults = new Map<string, Fault>();
const Call = z.looseObject({ method: z.string(), params: z.array(z.unknown()) });

const sent: string[] = [];

globalThis.fetch = async (input, init) => {
  const call = typeof init?.body === "string" ? Call.safeParse(JSON.parse(init.body)).data : undefined;
  const forward = () => real(input, init);
  if (call?.method === "eth_sendRawTransaction") sent.push(String(call.params[0]));
  return await (faults.get(call?.method ?? "") ?? ((go) => go()))(forward, String(init?.body));
};

export const network = {
  /** Raw transactions that were tried since the last {@link fixNetwork}. */
  sent,
  break(method: string): void {
    faults.set(method, () => Promise.reject(new TypeError("connection refused")));
  },
  /** The node gets it; the answer never arrives. */
  loseAnswers(method: string): void {
    faults.set(method, async (forward) => {
      await forward();
      throw new TypeError("connection reset");
    });
  },
  lie(method: string, body: string, status = 200): void {
    faults.set(method, () => Promise.resolve(new Response(body, { status })));
  },
  /** Once, before the first call whose text has `part` in it. */
  before(method: string, act: () => Promise<void>, part = ""): void {
    faults.set(method, async (forward, body) => {
      if (!body.includes(part)) return await forward();
      faults.delete(method);
      await act();
      return await forward();
    });
  },
  fix(): void {
    faults.clear();
  },
};

export function fixNetwork(): void {
  network.fix();
  sent.length = 0;
}
