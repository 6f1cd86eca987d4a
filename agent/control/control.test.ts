import { LeaseTerms as LeaseTermsWire } from "@gpux/protocol/eip712";
import { afterEach, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { configWith, credentials, hasher, house, leaseOf, termsWith, textWith } from "../fixtures.ts";
import type { Journal } from "../journal.ts";
import { type ScriptedEdge, startScriptedEdge } from "../scripted-edge.ts";
import { type Control, createControl, type LeaseHouse } from "./control.ts";
import type { Hold, HoldEntry } from "./holds.ts";

const resources = { gpus: 1, cpu: 0, memory_gb: 0 };
const share = { gpus: textWith().gpus, resources };
const nothing = async () => {};

let edge: ScriptedEdge;
let control: Control | null;

beforeEach(async () => {
  edge = await startScriptedEdge();
  control = null;
});

afterEach(async () => {
  control?.stop();
  await edge.close();
});

/** A control link with this journal and these leases, before its edge has welcomed it. */
async function greeting(
  journal: Partial<Journal<HoldEntry>>,
  leases: Partial<LeaseHouse>,
  holds: Hold[] = [],
) {
  const config = configWith({ edge: edge.url });
  const started = createControl({
    house: { ...house, config, hasher },
    credentials,
    holds: new Map(holds.map((hold) => [hold.lease, hold])),
    journal: {
      append() {},
      written: nothing,
      sync: nothing,
      rewrite: nothing,
      length: 0,
      remove: nothing,
      close: nothing,
      ...journal,
    },
    leases: {
      list: () => [],
      open: nothing,
      rest: nothing,
      dial: nothing,
      yield() {},
      forget: nothing,
      ...leases,
    },
    challenges: null,
    claimed: 0,
    log() {},
    onVerdict() {},
    onState() {},
    onEnd() {},
    onFault(error) {
      throw error;
    },
  });
  control = started;
  started.start();
  const socket = await edge.control();
  await socket.next("hello");
  const listed = (leases.list?.() ?? []).map(({ id }) => id);
  const welcome = (ack: number) => socket.say(0, ack, { t: "welcome", heartbeat_s: 25, leases: listed });
  return { control: started, socket, welcome };
}

/** The same, welcomed. */
async function online(...by: Parameters<typeof greeting>) {
  const { control, socket, welcome } = await greeting(...by);
  welcome(0);
  return { control, socket };
}

test("LNK-2: what an owner wants between hello and welcome is said, though the edge heard more of the last process", async () => {
  const { control, socket, welcome } = await greeting({}, {});
  control.claim(0);
  welcome(3);
  expect(await socket.next("claim")).toMatchObject({ seq: 4, gpus: 0 });
});

test("LNK-2: a release is acknowledged and acted on only once a loss of power would leave it known", async () => {
  const { id } = leaseOf(termsWith());
  const happened: string[] = [];
  const forgotten = Promise.withResolvers<void>();
  const { control, socket } = await online(
    {
      append: (entry) => happened.push(entry.is),
      async sync() {
        control.claim(0);
        happened.push(`synced, acknowledged ${(await socket.next("claim")).ack}`);
      },
    },
    {
      list: () => [{ id, isResting: false, ...share }],
      async forget() {
        happened.push("forgotten");
        forgotten.resolve();
      },
    },
  );
  socket.say(1, 0, { t: "release", hold: id });
  await forgotten.promise;
  expect(happened).toEqual(["released", "synced, acknowledged 0", "forgotten"]);
});

test("LSE-9: a resting lease leaves its GPU to others also where a loss of power brought its hold back", async () => {
  const expiry = Math.floor(Date.now() / 1_000) + 3_600;
  const [rests, comes] = [termsWith({ expiry }), termsWith({ expiry, feeBps: 1 })];
  const expiresAt = Date.now() + 600_000;
  const { socket } = await online(
    {},
    { list: () => [{ id: leaseOf(rests).id, isResting: true, ...share }] },
    [{ lease: leaseOf(rests).id, terms: rests, ...share, gpus: [...share.gpus], expiresAt }],
  );
  const hold = leaseOf(comes).id;
  const terms = z.encode(LeaseTermsWire, comes);
  const expires_at = new Date(expiresAt).toISOString();
  socket.say(1, 0, { t: "hold", hold, resources, terms, text: textWith(), expires_at });
  expect(await socket.next("held")).toMatchObject({ hold });
});
