import { sha256Hex } from "@gpux/protocol/canonical";
import type { ErrorCode } from "@gpux/protocol/errors";
import { contentDigest } from "@gpux/protocol/http-signature/content-digest";
import { type Ground, jobBody, warmPath } from "./ground.ts";
import type { Answered, Requests } from "./signed-requests.ts";

/** A request whose signature is not good for it, and as what it is refused. */
export type BadSignature = readonly [
  title: string,
  code: ErrorCode,
  answer: (ground: Ground) => Promise<Answered>,
];

/** A job that would be taken if it were signed. */
export function unsignedJob(ground: Ground): Request {
  return ground.requests.of(warmPath(ground), { json: jobBody(ground) });
}

type Options = Parameters<Requests["signed"]>[2];

function signedJob(ground: Ground, options: Options = {}): Promise<Request> {
  return ground.requests.signed(ground.consumer, unsignedJob(ground), options);
}

function withHeader(request: Request, name: string, value: string | null): Request {
  const headers = new Headers(request.headers);
  if (value === null) headers.delete(name);
  else headers.set(name, value);
  return new Request(request, { headers });
}

const signedWith = (options: () => Options) => async (ground: Ground) =>
  ground.requests.send(await signedJob(ground, options()));
const changed = (change: (request: Request) => Request | Promise<Request>) => async (ground: Ground) =>
  ground.requests.send(await change(await signedJob(ground)));
/** The signature that is good for another request. */
const of = (other: (ground: Ground) => Request) => async (ground: Ground) => {
  const { headers } = await ground.requests.signed(ground.consumer, other(ground));
  return ground.requests.send(new Request(unsignedJob(ground), { headers }));
};

const now = () => Math.floor(Date.now() / 1_000);
const otherBody = new TextEncoder().encode(JSON.stringify({ max_price: "1" }));
const noKeysOwn = `eth=:${Buffer.alloc(65, 1).toString("base64")}:`;

export const BAD_SIGNATURES: readonly BadSignature[] = [
  ["no signature", "signature_missing", (ground) => ground.requests.send(unsignedJob(ground))],
  [
    "a signature that cannot be read",
    "signature_malformed",
    changed((request) => withHeader(request, "signature-input", "eth=(")),
  ],
  ["a bad signature", "signature_invalid", changed((request) => withHeader(request, "signature", noKeysOwn))],
  ["an expired signature", "signature_expired", signedWith(() => ({ created: now() - 400 }))],
  ["a signature from the future", "signature_not_yet_valid", signedWith(() => ({ created: now() + 400 }))],
  [
    "a signature that holds for too long",
    "signature_malformed",
    changed((request) => {
      const input = request.headers.get("signature-input") ?? "";
      return withHeader(request, "signature-input", input.replace(/expires=\d+/, `expires=${now() + 4_000}`));
    }),
  ],
  [
    "a request to another host",
    "signature_wrong_audience",
    async (ground) => ground.requests.sendAs("other.example", await signedJob(ground)),
  ],
  [
    "a signature for another host",
    "signature_invalid",
    of((ground) => new Request(`http://other.example${warmPath(ground)}`, unsignedJob(ground))),
  ],
  [
    "a signature for another method",
    "signature_invalid",
    of((ground) => new Request(unsignedJob(ground), { method: "PUT" })),
  ],
  [
    "a signature for another path",
    "signature_invalid",
    of((ground) => ground.requests.of("/v1/jobs", { json: jobBody(ground) })),
  ],
  ["a signature for another chain", "signature_wrong_chain", signedWith(() => ({ chainId: 10 }))],
  [
    "a signature in somebody else's name",
    "signature_invalid",
    async (ground) => {
      const claimed = { ...ground.stranger, address: ground.consumer.address };
      return ground.requests.send(await ground.requests.signed(claimed, unsignedJob(ground)));
    },
  ],
  [
    "another body than was signed",
    "digest_mismatch",
    changed((request) => new Request(request, { body: otherBody })),
  ],
  [
    "another body with its own digest",
    "signature_invalid",
    changed(async (request) =>
      withHeader(new Request(request, { body: otherBody }), "content-digest", await contentDigest(otherBody)),
    ),
  ],
  [
    "no digest of the body",
    "digest_missing",
    changed((request) => withHeader(request, "content-digest", null)),
  ],
  [
    "a digest of another kind",
    "digest_mismatch",
    changed((request) => withHeader(request, "content-digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:")),
  ],
  [
    "an object under a hash that is not its own",
    "digest_mismatch",
    async ({ requests, consumer }) => {
      const path = `/v1/objects/${await sha256Hex("other bytes")}`;
      const put = requests.of(path, { method: "PUT", body: "these bytes" });
      return requests.send(await requests.signed(consumer, put));
    },
  ],
];
