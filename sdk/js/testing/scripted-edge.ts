import { sha256Hex } from "@gpux/protocol/canonical";
import { allocateTypedData, CreditOffer } from "@gpux/protocol/credit";
import { authorizationDigest, depositNonce, digest, fundingNonce } from "@gpux/protocol/eip712";
import { type ErrorCode, problem } from "@gpux/protocol/errors";
import { fundingAmount, isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import { verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import { type JobId, jobIdOf } from "@gpux/protocol/ids";
import { DepositIntent } from "@gpux/protocol/intent";
import { inputHash, JobBatch, JobRequest, type JobStatus, RoutedJobRequest } from "@gpux/protocol/job";
import { ExtendRequest, LeaseRequest, type Quote, TopUpRequest } from "@gpux/protocol/lease";
import { recoverSigner } from "@gpux/protocol/signature";
import { keccak256, stringToBytes } from "viem/utils";
import { domain, lower, provider, quoteAt, settlement, signedReceipt, wellKnown, wire } from "./market.ts";
import { createScriptedSessions } from "./scripted-sessions.ts";

export interface Seen {
  readonly route: string;
  /** With its question mark; empty without one. */
  readonly query: string;
  readonly headers: Headers;
  readonly body: string;
  /** Who signed it; null when nobody did. */
  readonly signer: string | null;
  readonly nonce: string | null;
}

type Reply = Response | Error;
type Handler = (seen: Seen) => Reply | Promise<Reply>;

interface Job {
  readonly id: JobId;
  readonly request: JobRequest;
  status: JobStatus;
  error?: { code: string; title: string; hint: string; fault: string; detail?: string };
}

/**
 * An edge of one node that speaks the wire shapes of protocol/, checks every signature it is given, and keeps no
 * state outside this object. Jobs end as `outcome` says, with one output and a receipt that both parties signed.
 * `script` puts answers before its own: each is used once, in order.
 */
export function createScriptedEdge(options: { origin?: string; now?: () => number } = {}) {
  const now = options.now ?? Date.now;
  const host = new URL(options.origin ?? wellKnown.origin).host;
  const seen: Seen[] = [];
  const scripts = new Map<string, Handler[]>();
  const objects = new Map<string, Uint8Array<ArrayBuffer>>();
  const jobs = new Map<string, Job>();
  const keys = new Map<string, Job>();
  const sessions = createScriptedSessions(host, now);
  const edge = {
    seen,
    sessions,
    objects,
    jobs,
    quote: quoteAt(now()),
    outcome: "succeeded" as JobStatus,
    failure: undefined as Job["error"],
    output: new TextEncoder().encode("a picture"),
    extendedS: 0,
    price: 40_000n,
    /** The payer's, for the consumer of the quote. */
    credit: 0n,
    lease: null as { quote: Quote; amount: bigint; spent: bigint; allowance: bigint; closed: boolean } | null,
    /** What `GET .../events` streams; each entry is one connection, the last one serves those after it too. */
    streams: [] as string[],
    script: (route: string, ...handlers: Handler[]) =>
      scripts.set(route, [...(scripts.get(route) ?? []), ...handlers]),
    routes: () => seen.map((each) => each.route),
    fetch: answer,
    nodeView,
  };

  async function answer(input: Request | URL | string, init?: RequestInit): Promise<Response> {
    const request = new Request(input, init);
    const url = new URL(request.url);
    const body = new Uint8Array(await request.arrayBuffer());
    const { method, headers } = request;
    const received = { method, url: url.href, headers, body };
    const verified =
      (await sessions.verdict(received)) ??
      (await verifyRequest(received, { now: now(), audience: [host], chainId: settlement.chain_id }));
    const signer = verified.ok ? verified.address : null;
    const nonce = verified.ok ? verified.nonce : null;
    const text = new TextDecoder().decode(body);
    const each: Seen = {
      route: `${method} ${url.pathname}`,
      query: url.search,
      headers,
      body: text,
      signer,
      nonce,
    };
    const replayed = nonce !== null && seen.some((before) => before.nonce === nonce);
    seen.push(each);
    const scripted = scripts.get(each.route)?.shift();
    const reply = scripted === undefined ? undefined : await scripted(each);
    if (reply instanceof Error) throw reply;
    if (reply !== undefined) return reply;
    if (url.pathname === "/.well-known/gpux") return Response.json(wellKnown);
    const open =
      url.pathname === "/v1/nodes" ||
      url.pathname === "/v1/offers" ||
      url.pathname === "/v1/relay" ||
      (url.pathname.startsWith("/v1/objects/") && method !== "PUT");
    if (open) return route(method, url, each, body);
    if (!verified.ok)
      return refuse(verified.code === "signature_wrong_audience" ? "signature_invalid" : verified.code);
    return replayed ? refuse("signature_replayed") : route(method, url, each, body);
  }

  async function route(
    method: string,
    url: URL,
    each: Seen,
    body: Uint8Array<ArrayBuffer>,
  ): Promise<Response> {
    const [, , kind, id, action] = url.pathname.split("/");
    if (kind === "objects" && id !== undefined) return object(method, id, body);
    if (kind === "nodes") return list([nodeView()]);
    if (kind === "credit") return Response.json(creditView());
    if (kind === "relay") return relay(each);
    if (kind === "sessions" && method === "POST") return sessions.open(each.body, each.signer);
    if (kind === "sessions" && method === "DELETE")
      return sessions.close(id ?? "") ?? refuse("session_unknown");
    if (kind === "sessions") return list(sessions.list());
    if (kind === "offers") return Response.json({ ...emptyList, data: [offerView()] });
    if (kind === "quotes") return Response.json(wire.quote(edge.quote), { status: 201 });
    if (kind === "leases" && id === undefined)
      return method === "GET" ? list(edge.lease ? [leaseView()] : []) : open(each);
    if (kind === "leases" && action === "jobs" && each.body.startsWith("["))
      return submitAll(each, JobBatch.parse(JSON.parse(each.body)));
    if (kind === "leases" && action === "jobs")
      return submit(each, JobRequest.parse(JSON.parse(each.body)), true);
    if (kind === "leases") {
      if (edge.lease === null || id !== edge.lease.quote.lease_id) return refuse("lease_unknown");
      if (action === "close") edge.lease.closed = true;
      if (action === "topup") return topUp(TopUpRequest.parse(JSON.parse(each.body)));
      if (action === "extend") return extend(ExtendRequest.parse(JSON.parse(each.body)));
      return Response.json(leaseView());
    }
    if (kind === "jobs" && (id === undefined || method === "PUT")) {
      const {
        demand: _,
        lease,
        payer: __,
        funding: ___,
        ...request
      } = RoutedJobRequest.parse(JSON.parse(each.body));
      return submit(each, request, lease !== undefined);
    }
    const job = jobs.get(id ?? "");
    if (job === undefined) return refuse("job_unknown");
    if (action === "events") return stream(job);
    if (action === "cancel") job.status = "canceled";
    else if (action === "outputs") return new Response(edge.output);
    else if (url.searchParams.has("wait")) end(job);
    return Response.json(await jobView(job));
  }

  async function object(method: string, sha256: string, body: Uint8Array<ArrayBuffer>): Promise<Response> {
    if (method === "PUT") {
      if ((await sha256Hex(body)) !== sha256) return refuse("object_mismatch");
      objects.set(sha256, body);
      return new Response(null, { status: 201 });
    }
    const stored = objects.get(sha256);
    return stored === undefined ? refuse("object_unknown") : new Response(method === "HEAD" ? null : stored);
  }

  async function open(each: Seen): Promise<Response> {
    const { lease, funding } = LeaseRequest.parse(JSON.parse(each.body));
    const { quote } = edge;
    if (lease !== quote.lease_id) return refuse("quote_unknown");
    if (!(await isPayers(funding))) return refuse("funding_invalid");
    if (isFromCredit(funding)) {
      if (funding.funded_to > edge.credit) return refuse("insufficient_credit");
      edge.credit -= funding.funded_to;
    }
    edge.lease = { quote, amount: fundingAmount(funding), spent: 0n, allowance: 0n, closed: false };
    return Response.json(leaseView(), { status: 201 });
  }

  async function extend({ extended_s, funding }: ExtendRequest): Promise<Response> {
    edge.extendedS = Math.max(edge.extendedS, extended_s);
    return funding === undefined ? Response.json(leaseView()) : topUp({ funding });
  }

  async function topUp(asked: TopUpRequest): Promise<Response> {
    if ("auto_top_up" in asked) {
      const raises = asked.auto_top_up?.allocations ?? [];
      for (const raise of raises) if (!(await isPayers(raise))) return refuse("funding_invalid");
      return Response.json(leaseView());
    }
    const { funding } = asked;
    if (edge.lease === null || !(await isPayers(funding))) return refuse("funding_invalid");
    edge.lease.amount = (isFromCredit(funding) ? 0n : edge.lease.amount) + fundingAmount(funding);
    return Response.json(leaseView());
  }

  async function isPayers(funding: LeaseFunding): Promise<boolean> {
    const { quote } = edge;
    if (isFromCredit(funding)) {
      const { funded_to, valid_before: validBefore, signature } = funding;
      const message = { leaseIds: [quote.lease_hash], fundedTo: [funded_to], validBefore };
      const by = await recoverSigner(digest(domain, "Allocate", message), signature);
      return by === quote.terms.consumerSigner;
    }
    const nonce = fundingNonce({
      leaseIds: [quote.lease_hash],
      amounts: [funding.amount],
      salt: funding.salt,
    });
    const hash = authorizationDigest(tokenOf(), {
      from: quote.terms.payer,
      to: settlement.escrow,
      value: funding.amount,
      validAfter: BigInt(funding.valid_after),
      validBefore: BigInt(funding.valid_before),
      nonce,
    });
    return (await recoverSigner(hash, funding.signature)) === quote.terms.payer;
  }

  /** A deposit, which the chain takes at once. */
  async function relay(each: Seen): Promise<Response> {
    const deposit = DepositIntent.parse(JSON.parse(each.body));
    const { from: payer, spender, meter, amount, salt } = deposit;
    const hash = authorizationDigest(tokenOf(), {
      from: payer,
      to: settlement.escrow,
      value: amount,
      validAfter: 0n,
      validBefore: BigInt(deposit.validBefore),
      nonce: depositNonce({ payer, spender, meter, amount, salt }),
    });
    if ((await recoverSigner(hash, deposit.signature)) !== payer) return refuse("signature_invalid");
    edge.credit += amount;
    return Response.json({
      object: "intent",
      status: "done",
      key: `deposit:${payer}:${salt}`,
      superseded: false,
      txHash: `0x${"0a".repeat(32)}`,
      blockNumber: 1,
      blockHash: `0x${"0b".repeat(32)}`,
      blockTimestamp: Math.floor(now() / 1_000),
      result: { kind: "deposit", payer, spender, meter, amount: amount.toString() },
      cost: null,
      confirmation: "included",
      enough: true,
    });
  }

  function creditView() {
    const { payer, consumerSigner: spender, meter } = edge.quote.terms;
    return { object: "credit", payer, spender, meter, balance: edge.credit.toString() };
  }

  function paymentOffer() {
    const { quote } = edge;
    if (edge.credit < quote.amount) return { quote: wire.quote(quote) };
    const validBefore = Math.floor(now() / 1_000) + 600;
    const message = { leaseIds: [quote.lease_hash], fundedTo: [quote.amount], validBefore };
    const allocate = allocateTypedData(settlement, message);
    return {
      quote: wire.quote(quote),
      credit: CreditOffer.encode({ balance: edge.credit, allocate }),
    };
  }

  async function submit(each: Seen, request: JobRequest, named: boolean): Promise<Response> {
    const key = each.headers.get("idempotency-key") ?? each.nonce ?? "";
    const known = keys.get(key);
    if (known !== undefined)
      return Response.json(await jobView(known), { headers: { "idempotent-replayed": "true" } });
    const { lease } = edge;
    if (lease === null) {
      return named ? refuse("lease_unknown") : refuse("payment_required", paymentOffer());
    }
    if (lease.closed) return refuse("lease_closed");
    const needed = committed() + request.max_price;
    if (needed > lease.amount) return refuse("lease_underfunded");
    const { allowance } = request;
    const { lease_id, lease_hash } = lease.quote;
    if (allowance !== undefined) {
      const hash = digest(domain, "Allowance", { leaseId: lease_hash, cumulative: allowance.cumulative });
      if ((await recoverSigner(hash, allowance.signature)) !== lease.quote.terms.consumerSigner) {
        return refuse("allowance_invalid");
      }
      if (allowance.cumulative > lease.allowance) lease.allowance = allowance.cumulative;
    }
    if (needed > lease.allowance) {
      return refuse("allowance_required", {
        allowance: { lease_id, lease_hash, cumulative: needed.toString() },
      });
    }
    const seed = new Uint8Array(16).fill(jobs.size + 1);
    const job: Job = { id: jobIdOf(lease_id, seed), request, status: "queued" };
    jobs.set(job.id, job);
    keys.set(key, job);
    if (each.headers.has("prefer")) end(job);
    return Response.json(await jobView(job), { status: 201 });
  }

  /** One after another, under the allowance of the first; nothing is taken back. */
  async function submitAll(each: Seen, [first, ...others]: JobBatch): Promise<Response> {
    if (first === undefined || edge.lease === null) return refuse("lease_unknown");
    const key = each.headers.get("idempotency-key");
    const sum = others.reduce((total, { max_price }) => total + max_price, first.max_price);
    const needed = committed() + sum;
    const { lease_id, lease_hash } = edge.lease.quote;
    if (needed > edge.lease.allowance && needed > (first.allowance?.cumulative ?? 0n))
      return refuse("allowance_required", {
        allowance: { lease_id, lease_hash, cumulative: needed.toString() },
        errors: [{ pointer: "/0", detail: "not covered" }],
      });
    const data: unknown[] = [];
    for (const [index, request] of [first, ...others].entries()) {
      const headers = new Headers(each.headers);
      headers.set("idempotency-key", `${key} ${index}`);
      const taken = await submit({ ...each, headers }, request, true);
      if (!taken.ok) return taken;
      data.push(await taken.json());
    }
    return list(data);
  }

  function committed(): bigint {
    let sum = edge.lease?.spent ?? 0n;
    for (const job of jobs.values()) if (job.status === "queued") sum += job.request.max_price;
    return sum;
  }

  function end(job: Job): void {
    if (job.status !== "queued") return;
    job.status = edge.outcome;
    if (edge.failure !== undefined) job.error = edge.failure;
    if (edge.lease !== null) edge.lease.spent += edge.price;
  }

  function stream(job: Job): Response {
    const text = (edge.streams.length > 1 ? edge.streams.shift() : edge.streams[0]) ?? "";
    if (text.includes('"succeeded"') || text.includes('"failed"')) end(job);
    return new Response(text.replaceAll("JOB", job.id), { headers: { "content-type": "text/event-stream" } });
  }

  async function jobView(job: Job) {
    const ended = job.status === edge.outcome;
    const price = ended ? edge.price : 0n;
    const at = new Date(now()).toISOString();
    const sha256 = await sha256Hex(edge.output);
    const terms = edge.quote.terms;
    const done = job.status === "succeeded";
    const path = `/v1/jobs/${job.id}`;
    return {
      id: job.id,
      object: "job",
      status: job.status,
      lease_id: edge.quote.lease_id,
      node: terms.providerSigner,
      function: job.request.function,
      created_at: at,
      ...(ended ? { started_at: at, ended_at: at } : {}),
      attempts: [{ n: 1, node: terms.providerSigner }],
      max_price: job.request.max_price.toString(),
      price: price.toString(),
      billed_ms: ended ? 40 : 0,
      outputs: done
        ? [
            {
              name: "image",
              content_type: "image/png",
              bytes: edge.output.length,
              sha256,
              url: `${path}/outputs/0`,
            },
          ]
        : [],
      ...(job.error === undefined ? {} : { error: job.error }),
      ...(done
        ? {
            receipt: await signedReceipt({
              leaseId: edge.quote.lease_hash,
              job: keccak256(stringToBytes(job.id)),
              sequence: 1,
              attempt: 1,
              inputHash: `0x${await inputHash(job.request)}`,
              outputHashes: [`0x${sha256}`],
              node: terms.providerSigner,
              gpu: "SWIFTSHADER",
              billedMs: 40n,
              price,
              cumulative: price,
              endedAt: Math.floor(now() / 1_000),
            }),
          }
        : {}),
      urls: { get: path, events: `${path}/events`, cancel: `${path}/cancel` },
    };
  }

  function leaseView() {
    const { lease, quote } = edge;
    return {
      id: quote.lease_id,
      object: "lease",
      lease_hash: quote.lease_hash,
      status: lease?.closed ? "closing" : "active",
      terms: wire.terms(quote.terms),
      text: quote.text,
      node: quote.terms.providerSigner,
      node_connected: true,
      warm: true,
      funded: (lease?.amount ?? 0n).toString(),
      spent: (lease?.spent ?? 0n).toString(),
      committed: committed().toString(),
      allowance: (lease?.allowance ?? 0n).toString(),
      billed_ms: 0,
      jobs_ended: 0,
      jobs_open: 0,
      transactions: [],
      created_at: new Date(now()).toISOString(),
    };
  }

  function nodeView() {
    const { text, terms } = edge.quote;
    return {
      id: lower(provider.address),
      object: "node",
      status: "online",
      provider: terms.provider,
      gpus: text.gpus,
      gpus_free: 1,
      cpu: 4,
      memory_gb: 8,
      region: text.region,
      prices: text.prices,
      agent_version: "0.1.0",
      last_seen: new Date(now()).toISOString(),
    };
  }

  function offerView() {
    const node = nodeView();
    const rate = "3600000";
    return {
      ...node,
      object: "offer",
      rate_per_hour: rate,
      tier: "firm",
      gpu_name: "SWIFTSHADER",
      num_gpus: 1,
      gpu_ram: 0,
      cpu_cores: 0,
      cpu_ram: 0,
      geolocation: node.region,
      dph_total: "3.60",
      min_bid: null,
      duration: 604_800,
      machine_id: node.id,
      host_id: node.provider,
    };
  }

  return edge;
}

const emptyList = { object: "list", data: [], has_more: false, blockers: {} };

export type ScriptedEdge = ReturnType<typeof createScriptedEdge>;

export function list(data: unknown[], has_more = false): Response {
  return Response.json({ object: "list", data, has_more });
}

/** A refusal as the edge writes it; `headers` for Retry-After. */
export function refuse(code: ErrorCode, extra: object = {}, headers: Record<string, string> = {}): Response {
  const body = problem(code, "req_test", undefined, extra);
  return new Response(JSON.stringify(body), {
    status: Number(body.status),
    headers: { "content-type": "application/problem+json", ...headers },
  });
}

/** One frame of an event stream as the edge writes it. */
export function frame(id: number, type: string, data: object): string {
  const event = { id, job: "JOB", at: "2026-11-22T00:00:00Z", type, data };
  return `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function tokenOf() {
  return {
    name: settlement.token_name,
    version: settlement.token_version,
    chainId: settlement.chain_id,
    verifyingContract: settlement.token,
  };
}
