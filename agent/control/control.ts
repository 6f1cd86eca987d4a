import type { Share } from "@gpux/protocol/capacity";
import type { Verdict } from "@gpux/protocol/challenge/verdict";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { ToNode } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import type { Journal } from "../journal.ts";
import { type Credentials, socketUrl, upgradeHeaders } from "../link/credentials.ts";
import { dueBy, type NodeBody, nodeBody, ownClock, parseToNode } from "../link/frames.ts";
import type { LinkEnd, LinkState } from "../link/machine.ts";
import { createLink, type Link } from "../link/socket.ts";
import type { Log } from "../log.ts";
import { type Admission, admitResources, admitTerms, admitText, type House } from "./admission.ts";
import type { Challenges } from "./challenges.ts";
import { enterHold, type HoldEntry, type Holds, rememberedHolds, takenShares } from "./holds.ts";

/** As package.json of this workspace. */
export const AGENT_VERSION = "0.1.0";

/** What a lease has of the machine, and the text that its terms commit to, where it is known. */
export interface Sold extends Share {
  readonly text?: QuoteText | undefined;
}

/** What the control link asks of the rest of the agent. */
export interface LeaseHouse {
  /** Leases that are not over; a resting one leaves its resources to others. */
  list(): readonly ({ readonly id: LeaseId; readonly isResting: boolean } & Share)[];
  /** Starts to serve; `refusal`: only to say why not. Resolves once the lease is in its journal. */
  open(lease: LeaseId, terms: LeaseTerms, sold: Sold, refusal: string | null): Promise<void>;
  /** Hangs up and keeps the journal. Resolves once a restart would know it too. */
  rest(lease: LeaseId): Promise<void>;
  /** A resting lease is served, but not given its resources. */
  dial(lease: LeaseId): Promise<void>;
  /** The owner or a firm demand takes its resources back in so long. */
  yield(lease: LeaseId, noticeS: number): void;
  forget(lease: LeaseId, why: string): Promise<void>;
}

export interface ControlOptions {
  readonly house: House;
  readonly credentials: Credentials;
  readonly holds: Holds;
  readonly journal: Journal<HoldEntry>;
  readonly leases: LeaseHouse;
  /** Null: a simulated machine, which has nothing to show. */
  readonly challenges: Challenges | null;
  /** GPUs that the owner uses for himself, from the start. */
  readonly claimed: number;
  readonly log: Log;
  readonly onVerdict: (verdict: Verdict) => void;
  readonly onState: (state: LinkState, detail: string) => void;
  readonly onEnd: (end: LinkEnd) => void;
  readonly onFault: (error: unknown) => void;
}

export interface Control {
  start(): void;
  /** The owner uses so many GPUs for himself from now on. */
  claim(gpus: number): void;
  /** Takes no more holds and says so. */
  drain(deadlineS: number): Promise<void>;
  stop(): void;
}

/** For a lease whose hold is forgotten, the least that a lease has. */
const LEAST: Share = { gpus: [], resources: { gpus: 1, cpu: 0, memory_gb: 0 } };
const HELLO_LEASES = 64;

/** The node's control socket: says what there is, confirms quotes against the owner's own prices, opens leases. */
export function createControl(options: ControlOptions): Control {
  const { house, credentials, leases, journal, log } = options;
  let holds = options.holds;
  let draining = false;
  let { claimed } = options;

  const enter = (entry: HoldEntry) => {
    holds = rememberedHolds(enterHold(holds, entry), Date.now());
    journal.append(entry);
    if (journal.length > 256 && journal.length > 4 * holds.size)
      journal.rewrite([...holds.values()].map((hold) => ({ is: "held", hold }))).catch(options.onFault);
  };

  const url = socketUrl(house.config.edge, "/v1/agent/connect");
  const say = (body: NodeBody) => link.send(nodeBody(body));
  const link: Link = createLink<ToNode>({
    url,
    headers: () => upgradeHeaders(credentials, url),
    onUnsigned: credentials.clock.refusedAt,
    parse: parseToNode,
    hello: () =>
      nodeBody({
        t: "hello",
        agent_version: AGENT_VERSION,
        provider: house.config.payout,
        offer: house.offer,
        leases: leases
          .list()
          .slice(0, HELLO_LEASES)
          .map(({ id }) => id),
        draining,
        claimed,
        ...(options.challenges === null ? {} : { challenges: true }),
      }),
    onWelcome: (frame) => {
      log({
        level: "info",
        event: "online",
        text: `the edge welcomed this node (${frame.leases.length} leases)`,
      });
      void settleLeases(frame.leases).catch(options.onFault);
    },
    onFrame,
    onState: options.onState,
    onEnd: options.onEnd,
    onFault: options.onFault,
  });

  /** The edge's list is the authority on which leases are over. */
  async function settleLeases(listed: readonly LeaseId[]): Promise<void> {
    const over = leases.list().filter(({ id }) => !listed.includes(id));
    for (const { id } of over) await leases.forget(id, "the edge no longer lists it");
    const known = new Set(leases.list().map(({ id }) => id));
    for (const id of listed)
      if (!known.has(id))
        log({
          level: "warn",
          event: "lease.unknown",
          text: `the edge lists ${id}, of which there is no journal here`,
        });
  }

  async function onFrame(frame: Exclude<ToNode, { t: "welcome" | "ack" }>): Promise<void> {
    switch (frame.t) {
      case "reject":
        log({ level: "error", event: "rejected", text: `${frame.code}: ${frame.detail ?? "no detail"}` });
        return;
      case "hold":
        await hold(frame);
        return;
      case "release":
        enter({ is: "released", lease: frame.hold });
        // LNK-2: once acknowledged it is never said again, and a loss of power must not bring the hold back.
        await journal.sync();
        if (entryOf(frame.hold) !== undefined) await leases.forget(frame.hold, "released by the edge");
        return;
      case "open":
        await open(frame.lease, frame.terms);
        return;
      case "rest":
        await leases.rest(frame.lease);
        return;
      case "yield":
        log({
          level: "info",
          event: "lease.yield",
          text: `${frame.lease} gives its GPUs back within ${frame.notice_s} s`,
        });
        leases.yield(frame.lease, frame.notice_s);
        return;
      case "dial":
        await leases.dial(frame.lease);
        return;
      case "challenge":
        challenged(frame);
        return;
      case "verdict":
        judged(frame.verdict);
        return;
    }
  }

  /** Not waited for: frames that come meanwhile are dealt with, a hold among them. */
  function challenged(frame: Extract<ToNode, { t: "challenge" }>): void {
    const { challenges } = options;
    if (challenges === null) return;
    challenges
      .answer(frame)
      .then((answer) => {
        if (answer.t === "unproven")
          log({
            level: "info",
            event: "challenge.passed",
            text: `no proof of capacity now: ${answer.reason}`,
          });
        say(answer);
      })
      .catch(options.onFault);
  }

  function judged(verdict: Verdict): void {
    const { result, gops } = verdict;
    const text = {
      verified: `the edge has verified this GPU: ${gops} Gop/s`,
      slow: `not verified: ${gops} Gop/s are too few for this model. Does something else use the GPU, or is it throttled?`,
      unrated: `not verified: of this model the edge knows no rate to hold ${gops} Gop/s against`,
      wrong:
        "quarantined: this GPU computed wrong. No new leases come until it is asked again and computes right",
    }[result];
    const level = result === "verified" || result === "unrated" ? "info" : "warn";
    log({ level, event: "challenge.verdict", text, facts: { result, gops } });
    options.onVerdict(verdict);
  }

  function entryOf(lease: LeaseId) {
    return leases.list().find(({ id }) => id === lease);
  }

  async function hold(frame: Extract<ToNode, { t: "hold" }>): Promise<void> {
    const { hold: lease, terms, resources } = frame;
    const expiresAt = Date.parse(frame.expires_at);
    const admission = admit(frame);
    if (!admission.ok) {
      log({
        level: "warn",
        event: "hold.declined",
        text: `${lease}: ${admission.code}: ${admission.detail}`,
      });
      say({ t: "declined", hold: lease, reason: `${admission.code}: ${admission.detail}`.slice(0, 200) });
      return;
    }
    enter({
      is: "held",
      hold: { lease, terms, resources, gpus: frame.text?.gpus ?? [], text: frame.text, expiresAt },
    });
    // Said only when a restart would know it too.
    await journal.sync();
    log({ level: "info", event: "hold.confirmed", text: `${lease} is held until ${frame.expires_at}` });
    say({ t: "held", hold: lease });
  }

  function admit({ hold: lease, terms, resources, text }: Extract<ToNode, { t: "hold" }>): Admission {
    if (draining) return { ok: false, code: "draining", detail: "The node is about to stop." };
    if (text === undefined) return { ok: false, code: "text_mismatch", detail: "What is sold is not said." };
    const proposal = { lease, terms, resources, tier: text.tier };
    const checks = [
      () => admitTerms(house, proposal, Math.floor(Date.now() / 1_000)),
      () => admitText(house, proposal, text),
      () => hasRoom(lease, { gpus: text.gpus, resources }, claimed),
    ];
    for (const check of checks) {
      const admission = check();
      if (!admission.ok) return admission;
    }
    return { ok: true };
  }

  function hasRoom(lease: LeaseId, share: Share, ownersGpus: number): Admission {
    const owners: Share = { gpus: [], resources: { gpus: ownersGpus, cpu: 0, memory_gb: 0 } };
    const taken = takenShares(holds, leases.list(), Date.now(), lease);
    return admitResources(house.offer, share, [...taken, owners]);
  }

  async function open(lease: LeaseId, terms: LeaseTerms): Promise<void> {
    const known = entryOf(lease);
    // Whether it is served was decided when it was first opened.
    if (known !== undefined) return leases.open(lease, terms, known, null);
    const held = holds.get(lease);
    const share: Sold = held ?? LEAST;
    // The id is the hash of the terms, so terms that pass are those that were held. Prices may have changed since.
    const agreed =
      held !== undefined && sameTerms(held.terms, terms)
        ? { ok: true as const }
        : admitTerms(house, { lease, terms, resources: share.resources }, Math.floor(Date.now() / 1_000));
    // The hold may have run out before the funding landed, and its room gone to another.
    // The owner's claim takes nothing of what this agent has promised: that gives way by itself, or is firm (LSE-11).
    const admission = agreed.ok ? hasRoom(lease, share, 0) : agreed;
    await leases.open(
      lease,
      terms,
      { gpus: share.gpus, resources: share.resources, text: share.text },
      admission.ok ? null : `${admission.code}: ${admission.detail}`,
    );
    enter({ is: "released", lease });
  }

  function sameTerms(a: LeaseTerms, b: LeaseTerms): boolean {
    return house.hasher.leaseTerms(a) === house.hasher.leaseTerms(b);
  }

  return {
    start: () => link.start(),
    claim(gpus) {
      claimed = gpus;
      say({ t: "claim", gpus });
    },
    async drain(deadlineS) {
      draining = true;
      const until = ownClock() + deadlineS * 1_000;
      link.send(dueBy(nodeBody({ t: "drain", deadline_s: deadlineS }), until));
      await link.flushed(2_000);
    },
    stop: () => {
      options.challenges?.close();
      link.stop();
    },
  };
}
