import { listOf } from "@gpux/protocol/answers";
import { type SessionSigner, signSessionRequest } from "@gpux/protocol/http-signature/session";
import {
  OpenedSession,
  SessionId,
  SessionRequest,
  type SessionScope,
  SessionView,
} from "@gpux/protocol/session";
import type { GpuxError } from "./error.ts";
import { newSessionKey, type SessionKeyPair } from "./session-key.ts";
import type { Timing } from "./timing.ts";
import { checked, jsonBody, type Recovery, type Transport } from "./transport.ts";

export interface SessionOptions {
  /** What the session may do; `["read", "jobs"]` by default. What it may not, the account still signs. */
  readonly scopes?: readonly SessionScope[];
  /** Seconds, at most a week; one day by default. Renewed by the account before they are over. */
  readonly expiresIn?: number;
  /** Base units: the most that jobs under this session may cost together, over all leases. */
  readonly cap: bigint;
  /** Its key; a new one of WebCrypto's by default, which cannot be read out. Renewals have new keys. */
  readonly key?: SessionKeyPair;
}

/** What one needs to go on with a session elsewhere or later. Whoever has it may act within the session's scopes. */
export interface KeptSession {
  readonly id: string;
  readonly token: string;
  readonly key: SessionKeyPair;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

export interface Session extends KeptSession {
  /** Revokes it; later requests are the account's to sign. */
  close(): Promise<void>;
}

export interface Sessions {
  /** Newest first, also those of other machines, and those that ended within the day. */
  list(): Promise<SessionView[]>;
  /** Revokes a session, wherever its key is. Idempotent. */
  close(id: string): Promise<SessionView>;
}

export interface SessionSettings {
  readonly transport: Transport;
  readonly timing: Timing;
  readonly chainId: () => Promise<number>;
  /** To begin with; it is not renewed, for nobody said how. */
  readonly kept: KeptSession | null;
}

interface Active {
  readonly session: KeptSession;
  /** How it is renewed, and from when on (ms). */
  readonly renewal: { readonly options: SessionOptions; readonly at: number } | null;
}

const DEFAULT_SCOPES = ["read", "jobs"] as const;
const DEFAULT_EXPIRES_IN_S = 86_400;
/** A session is renewed when this part of its life is left, so that an account that takes its time is not waited for. */
const RENEWED_AT = 0.1;

export interface SessionUse {
  /** The request signed by the session; null when the account has to sign it. */
  sign(request: Request): Promise<Request | null>;
  /** What may be done about a refusal of a request that the session signed. */
  recover(error: GpuxError): Recovery;
  readonly sessions: Sessions;
  open(options: SessionOptions): Promise<Session>;
}

/** The session of one client, if it has one: which key signs, until when, and what comes after. */
export function createSessionUse(settings: SessionSettings): SessionUse {
  const { transport, timing } = settings;
  let active: Active | null = settings.kept === null ? null : { session: settings.kept, renewal: null };
  let renewing: Promise<void> | null = null;

  async function grant(options: SessionOptions): Promise<KeptSession> {
    const seconds = options.expiresIn ?? DEFAULT_EXPIRES_IN_S;
    const key = options.key ?? (await newSessionKey());
    const expiresAt = Math.floor(timing.now() / 1_000 + seconds) * 1_000;
    const body = {
      key: key.publicJwk,
      scopes: [...(options.scopes ?? DEFAULT_SCOPES)],
      cap: options.cap,
      expires_at: new Date(expiresAt).toISOString(),
      audience: new URL(transport.url).host,
      chain_id: await settings.chainId(),
    };
    checked(SessionRequest, body);
    const call = { method: "POST", path: "/v1/sessions", body: jsonBody(body), signed: "wallet" } as const;
    const { id, token } = await transport.json(
      { ...call, headers: { "content-type": "application/json" } },
      OpenedSession,
    );
    return { id, token, key, expiresAt };
  }

  async function begin(options: SessionOptions): Promise<KeptSession> {
    const from = timing.now();
    const session = await grant(options);
    const at = from + (session.expiresAt - from) * (1 - RENEWED_AT);
    const { key: _spent, ...again } = options;
    active = { session, renewal: { options: again, at } };
    return session;
  }

  /** One renewal at a time. One that fails is tried again with the next request; until its end the session serves. */
  async function renew(options: SessionOptions): Promise<void> {
    renewing ??= begin(options)
      .then(
        () => undefined,
        () => undefined,
      )
      .finally(() => {
        renewing = null;
      });
    await renewing;
  }

  const sessions: Sessions = {
    async list() {
      return (await transport.json({ method: "GET", path: "/v1/sessions" }, listOf(SessionView))).data;
    },
    async close(id) {
      const path = `/v1/sessions/${checked(SessionId, id)}`;
      const closed = await transport.json({ method: "DELETE", path, signed: "wallet" }, SessionView);
      if (active?.session.id === id) active = null;
      return closed;
    },
  };

  return {
    sessions,
    async open(options) {
      const session = await begin(options);
      return { ...session, close: async () => void (await sessions.close(session.id)) };
    },
    async sign(request) {
      if (active?.renewal && timing.now() >= active.renewal.at) await renew(active.renewal.options);
      if (active === null || timing.now() >= active.session.expiresAt) return null;
      const { id, token, key } = active.session;
      const signer: SessionSigner = { id, token, sign: key.sign };
      return signSessionRequest(request, signer, { now: timing.now() });
    },
    recover({ code }) {
      if (code === "scope_missing") return "wallet";
      // Its end came early (this clock is late), or the edge has other secrets now.
      if (code === "session_expired" || code === "session_invalid") {
        active = null;
        return "wallet";
      }
      // Somebody meant it: the caller is told, and the account signs what comes after.
      if (code === "session_revoked") active = null;
      return null;
    },
  };
}
