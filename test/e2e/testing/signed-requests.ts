import { request as httpRequest } from "node:http";
import { Problem } from "@gpux/protocol/answers";
import { accountSigner, type SignOptions, signRequest } from "@gpux/protocol/http-signature/erc8128";
import type { Account } from "@gpux/sdk";

/** A request as it is written down before it is signed. */
export interface Sent {
  readonly method?: string;
  readonly json?: unknown;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly body: unknown;
}

/** Requests to one edge, signed by hand: what the SDK would never send can be sent too. */
export interface Requests {
  of(path: string, sent?: Sent): Request;
  signed(account: Account, request: Request, options?: SignOptions & { chainId?: number }): Promise<Request>;
  send(request: Request): Promise<Answered>;
  /** As it is, but with another Host header: to this edge, though the client meant another. */
  sendAs(host: string, request: Request): Promise<Answered>;
}

export function requestsTo(origin: string, chainId: number): Requests {
  return {
    of(path, { method, json, body, headers } = {}) {
      const content = json === undefined ? body : JSON.stringify(json);
      return new Request(new URL(path, origin), {
        method: method ?? (content === undefined ? "GET" : "POST"),
        headers: { ...(json === undefined ? {} : { "content-type": "application/json" }), ...headers },
        ...(content === undefined ? {} : { body: content }),
      });
    },
    signed: (account, request, { chainId: other = chainId, ...options } = {}) =>
      signRequest(request, accountSigner(account, other), options),
    async send(request) {
      const response = await fetch(request);
      return { status: response.status, headers: response.headers, body: parsed(await response.text()) };
    },
    async sendAs(host, request) {
      const body = Buffer.from(await request.arrayBuffer());
      const { hostname, port } = new URL(origin);
      const options = {
        hostname,
        port,
        path: new URL(request.url).pathname,
        method: request.method,
        headers: { ...Object.fromEntries(request.headers), host },
      };
      return new Promise((resolve, reject) => {
        const sending = httpRequest(options, async (incoming) => {
          const chunks: Buffer[] = [];
          for await (const chunk of incoming) chunks.push(chunk);
          const headers = new Headers();
          for (const [name, value] of Object.entries(incoming.headers)) headers.set(name, String(value));
          resolve({
            status: incoming.statusCode ?? 0,
            headers,
            body: parsed(Buffer.concat(chunks).toString()),
          });
        });
        sending.once("error", reject);
        sending.end(body);
      });
    },
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export function problemOf(answer: Answered): Problem {
  return Problem.parse(answer.body);
}
