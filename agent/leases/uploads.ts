import { once } from "node:events";
import { request as askHttp, type ClientRequest, type IncomingMessage } from "node:http";
import { request as askHttps } from "node:https";
import { type Credentials, signedHead } from "../link/credentials.ts";

/** Bytes to be put somewhere, with their hash. */
export interface Upload {
  readonly url: URL;
  readonly sha256: string;
  readonly bytes: Uint8Array;
  readonly contentType: string;
}

export interface UploadAnswer {
  readonly status: number;
  /** Its beginning. */
  readonly text: string;
}

/** Given to the socket at once: encryption holds a piece twice, and nothing else runs meanwhile. */
const PIECE_BYTES = 2 ** 20;
const TEXT_BYTES = 4_096;

/**
 * A signed `PUT`. By Node's own client: `fetch` and `Request` copy a body several times and read it once more for its
 * hash, which for a large output costs many times what sending it does. Rejects when the connection fails, or with the
 * signal's reason.
 */
export async function put(
  credentials: Credentials,
  upload: Upload,
  signal: AbortSignal,
): Promise<UploadAnswer> {
  const { url, sha256, contentType, bytes } = upload;
  signal.throwIfAborted();
  const headers = await signedHead(credentials, {
    ...{ method: "PUT", url: url.href, sha256: Buffer.from(sha256, "hex") },
    headers: new Headers({ "content-type": contentType }),
  });
  const options = {
    ...{ method: "PUT", signal },
    headers: { ...Object.fromEntries(headers), "content-length": String(bytes.length) },
  };
  const ask = () => (url.protocol === "https:" ? askHttps(url, options) : askHttp(url, options));
  const first = ask();
  try {
    return heard(await sent(first, bytes));
  } catch (error) {
    signal.throwIfAborted();
    if (!first.reusedSocket) throw error;
  }
  // The server had most likely hung up on an idle connection. To put the same again changes nothing (BLK-4).
  return heard(await sent(ask(), bytes));

  function heard({ date, ...answer }: UploadAnswer & { date: string | undefined }): UploadAnswer {
    if (answer.status === 401) credentials.clock.refusedAt(date);
    return answer;
  }
}

async function sent(
  request: ClientRequest,
  bytes: Uint8Array,
): Promise<UploadAnswer & { date: string | undefined }> {
  const answered = Promise.withResolvers<IncomingMessage>();
  request.once("response", answered.resolve);
  request.on("error", answered.reject);
  const isOver = answered.promise.then(
    () => true,
    () => true,
  );
  let at = 0;
  for (; at < bytes.length; at += PIECE_BYTES) {
    if (request.write(bytes.subarray(at, at + PIECE_BYTES))) continue;
    const drained = once(request, "drain").then(() => false);
    // An answer before the end is a refusal: the rest need not be sent.
    if (await Promise.race([drained, isOver])) break;
  }
  if (at >= bytes.length) request.end();
  const response = await answered.promise;
  const text = await textOf(response);
  if (!request.writableEnded) request.destroy();
  return { status: response.statusCode ?? 0, text, date: response.headers.date };
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response) {
    if (length < TEXT_BYTES) chunks.push(chunk);
    length += chunk.length;
  }
  return Buffer.concat(chunks).toString("utf8", 0, TEXT_BYTES);
}
