import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { CLIENT_CLOSE, CLIENT_PROTOCOL, FromClient, RequestName, ToClient } from "./client-frames.ts";
import { problem } from "./errors.ts";
import { createSeal } from "./http-signature/session-token.ts";
import { socketProtocols, upgradeWithCredentials } from "./http-signature/socket-credentials.ts";
import { jobIdOf, leaseIdOf } from "./ids.ts";
import { JobStatus } from "./job.ts";

const lease = leaseIdOf(`0x${"12".repeat(32)}`);
const jobId = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((seed) => jobIdOf(lease, seed));
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
const amount = fc.bigInt({ min: 0n, max: (1n << 88n) - 1n }).map(String);
const time = fc.constant("2026-11-23T00:00:00.000Z");
const hash = fc.stringMatching(/^[0-9a-f]{64}$/);

const view = fc.record({
  id: jobId,
  object: fc.constant("job"),
  status: fc.constantFrom(...JobStatus.options),
  lease_id: fc.constant(lease),
  node: fc.constant(`0x${"ab".repeat(20)}`),
  function: hash,
  created_at: time,
  attempts: fc.array(fc.record({ n: fc.nat(9), node: fc.constant(`0x${"ab".repeat(20)}`), paid: amount }), {
    maxLength: 3,
  }),
  max_price: amount,
  price: amount,
  billed_ms: fc.nat(),
  outputs: fc.array(
    fc.record({
      name: fc.string({ maxLength: 64 }),
      content_type: fc.constant("image/png"),
      bytes: fc.nat(),
      sha256: hash,
      url: fc.string(),
    }),
    { maxLength: 2 },
  ),
  urls: fc.constant({ get: "/a", events: "/b", cancel: "/c" }),
});
const event = fc.record({
  id: fc.integer({ min: 1 }),
  job: jobId,
  at: time,
  type: fc.constantFrom("status", "progress"),
  data: fc.dictionary(fc.string(), fc.jsonValue()),
});
const head = { v: fc.constant(1) };
const which = fc.oneof(fc.constant({}), fc.record({ index: fc.nat(63) }));
const named = <T extends string, Rest>(t: T, rest: fc.Arbitrary<Rest>) =>
  fc
    .tuple(fc.record({ ...head, t: fc.constant(t), id: name }), which, rest)
    .map(([a, b, c]) => ({ ...a, ...b, ...c }));

const fromClient = fc.oneof(
  fc.record({ ...head, t: fc.constant("job"), id: name, request: fc.jsonValue() }),
  fc.record({
    ...head,
    t: fc.constant("batch"),
    id: name,
    requests: fc.array(fc.jsonValue(), { minLength: 1, maxLength: 64 }),
  }),
  fc.record({ ...head, t: fc.constant("cancel"), id: name, job: jobId }),
);
const toClient = fc.oneof(
  fc.record({
    ...head,
    t: fc.constant("ready"),
    lease: fc.constant(lease),
    most_under_way: fc.integer({ min: 1 }),
    frame_limit: fc.integer({ min: 1 }),
    until: time,
  }),
  ...(["accepted", "result", "failed"] as const).map((t) => named(t, fc.record({ job: view }))),
  named("event", fc.record({ event })),
  fc.record({ ...head, t: fc.constant("state"), id: name, job: view }),
  fc.record({
    ...head,
    t: fc.constant("refused"),
    id: name,
    problem: fc.constant(
      problem("queue_full", "req_1", "full", { errors: [{ pointer: "/1", detail: "x" }] }),
    ),
  }),
);

describe("frames of the session socket", () => {
  it("what a client may say is read as it was written", () => {
    fc.assert(
      fc.property(fromClient, (frame) => {
        const text = JSON.stringify(frame);
        expect(FromClient.parse(JSON.parse(text))).toEqual(JSON.parse(text));
      }),
    );
  });

  it("a client's frame with a field too many, one too few or another version is none", () => {
    fc.assert(
      fc.property(fromClient, fc.nat(), (frame, n) => {
        const wire: Record<string, unknown> = JSON.parse(JSON.stringify(frame));
        expect(FromClient.safeParse({ ...wire, more: 1 }).success).toBe(false);
        expect(FromClient.safeParse({ ...wire, v: 2 }).success).toBe(false);
        const fields = Object.keys(wire).filter((field) => field !== "request");
        const { [fields[n % fields.length] ?? ""]: _, ...less } = wire;
        expect(FromClient.safeParse(less).success).toBe(false);
      }),
    );
  });

  it("nothing that is no frame is taken for one", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(FromClient.safeParse(value).success).toBe(false);
        expect(ToClient.safeParse(value).success).toBe(false);
      }),
    );
  });

  it("what a lease says comes out of its wire form as it went in, with fields that nobody knows yet left out", () => {
    fc.assert(
      fc.property(toClient, (frame) => {
        const wire = JSON.parse(JSON.stringify(frame));
        const read = ToClient.parse({ ...wire, newer: true });
        expect(z.encode(ToClient, read)).toEqual(wire);
      }),
    );
  });

  it("names are what an Idempotency-Key may be, so that the same request over HTTP is the same job", () => {
    fc.assert(
      fc.property(name, (text) => {
        expect(RequestName.parse(text)).toMatch(/^[!-~]{1,255}$/);
      }),
    );
    for (const wrong of ["", "a b", "a".repeat(65), "-a", "a\n", "ä"])
      expect(RequestName.safeParse(wrong).success).toBe(false);
  });

  it("no two ways of closing share a code, and all are an application's or a standard one", () => {
    const codes = Object.values(CLIENT_CLOSE);
    expect(new Set(codes).size).toBe(codes.length);
    for (const code of codes) expect(code === 1009 || (code >= 4_000 && code < 5_000)).toBe(true);
  });
});

const URL = "https://edge.test/v1/leases/x/session";
const upgrade = (...protocols: string[]) =>
  new Request(URL, { headers: { "sec-websocket-protocol": protocols.join(", ") } });
const field = fc.stringMatching(/^[\t -~]{1,300}$/).map((text) => text.trim());

describe("credentials among the subprotocols", () => {
  it("come out as the header fields that they were", () => {
    fc.assert(
      fc.property(field, field, fc.option(field, { nil: null }), (signature, input, token) => {
        const headers = new Headers({ signature, "signature-input": input });
        if (token !== null) headers.set("gpux-session", token);
        const protocols = socketProtocols(new Request(URL, { headers }));
        for (const each of protocols) expect(each).toMatch(/^[A-Za-z0-9._-]+$/);
        const read = upgradeWithCredentials(upgrade(...protocols));
        if (!read.ok) throw new Error("they cannot be read");
        expect(read.speaks).toBe(true);
        for (const [key, value] of headers) expect(read.request.headers.get(key)).toBe(value);
        expect(read.request.headers.get("gpux-session")).toBe(token);
      }),
    );
  });

  it("of the longest token and signature are short enough", async () => {
    const seal = createSeal(`0123456789abcdef:${"5e".repeat(32)}`);
    const token = await seal.seal({
      v: 1,
      id: `ses_${"a".repeat(26)}`,
      address: `0x${"ab".repeat(20)}`,
      key: { kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43) },
      scopes: ["read", "jobs", "quotes", "leases"],
      cap: (1n << 88n) - 1n,
      expires: 2 ** 48,
      audience: "h".repeat(255),
      chain: 2 ** 52,
    });
    const headers = {
      signature: `ses=:${"A".repeat(88)}:`,
      "signature-input": "i".repeat(500),
      "gpux-session": token,
    };
    expect(upgradeWithCredentials(upgrade(...socketProtocols(new Request(URL, { headers })))).ok).toBe(true);
  });

  it("are refused when they cannot be read, come twice, or stand beside header fields", () => {
    const text = (value: unknown) => `gpux.auth.${Buffer.from(JSON.stringify(value)).toString("base64url")}`;
    const good = { signature: "a", "signature-input": "b" };
    expect(upgradeWithCredentials(upgrade(CLIENT_PROTOCOL, text(good))).ok).toBe(true);
    const wrong = [
      [text(good), text(good)],
      ["gpux.auth.***"],
      ["gpux.auth."],
      [text([])],
      [text({ signature: "a" })],
      [text({ ...good, cookie: "c" })],
      [text({ ...good, signature: "a\nb" })],
      [text({ ...good, signature: "a".repeat(5_000) })],
    ];
    for (const protocols of wrong)
      expect(upgradeWithCredentials(upgrade(CLIENT_PROTOCOL, ...protocols)).ok, String(protocols)).toBe(
        false,
      );
    const both = new Request(upgrade(text(good)), {
      headers: { signature: "a", "sec-websocket-protocol": text(good) },
    });
    expect(upgradeWithCredentials(both).ok).toBe(false);
  });

  it("are not needed: header fields stay as they are, and another subprotocol is not ours", () => {
    const plain = upgradeWithCredentials(new Request(URL, { headers: { signature: "a" } }));
    expect(plain).toMatchObject({ ok: true, speaks: false });
    expect(upgradeWithCredentials(upgrade("graphql-ws"))).toMatchObject({ ok: true, speaks: false });
    expect(upgradeWithCredentials(upgrade("graphql-ws", CLIENT_PROTOCOL))).toMatchObject({ speaks: true });
  });
});
