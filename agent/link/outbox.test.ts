import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { acknowledged, due, enqueue, outboxOf, said, synced } from "./outbox.ts";

const frame = (t: string) => ({ t });
const seqs = (frames: readonly { seq: number }[]) => frames.map(({ seq }) => seq);

describe("outbox", () => {
  test("a frame that waits for the disk holds back all behind it, never one before it", () => {
    let outbox = outboxOf([], 1);
    outbox = enqueue(outbox, frame("started"), false);
    outbox = enqueue(outbox, frame("result"), true);
    outbox = enqueue(outbox, frame("started"), false);
    expect(seqs(due(outbox, 0))).toEqual([1]);
    expect(seqs(due(synced(outbox, 2), 1))).toEqual([2, 3]);
  });

  test("what came from the journal leaves again, and new frames count on from it", () => {
    const outbox = enqueue(outboxOf([{ seq: 7, body: frame("result") }], 8), frame("signed"), false);
    expect(outbox.acked).toBe(6);
    expect(seqs(due(outbox, outbox.acked))).toEqual([7, 8]);
  });

  test("an edge that knows a higher seq than we do moves our count past it", () => {
    expect(enqueue(acknowledged(outboxOf([], 1), 41), frame("result"), false).frames).toMatchObject([
      { seq: 42 },
    ]);
  });

  test("LNK-2: what was never said is not what an edge acknowledges that heard another life: it counts on behind that", () => {
    const fresh = enqueue(enqueue(outboxOf([], 1), frame("claim"), false), frame("drain"), true);
    const welcomed = acknowledged(fresh, 7);
    expect(welcomed.frames).toEqual([
      { seq: 8, body: frame("claim") },
      { seq: 9, body: frame("drain") },
    ]);
    expect(welcomed.acked).toBe(7);
    expect(seqs(due(welcomed, welcomed.acked))).toEqual([8]);
    expect(seqs(due(synced(welcomed, 9), welcomed.acked))).toEqual([8, 9]);
    expect(seqs(enqueue(welcomed, frame("held"), false).frames)).toEqual([8, 9, 10]);
  });

  test("LNK-2: what came from the journal may have been said, and what was said may be acknowledged", () => {
    const outbox = enqueue(outboxOf([{ seq: 3, body: frame("result") }], 4), frame("yield"), false);
    expect(acknowledged(outbox, 3).frames).toEqual([{ seq: 4, body: frame("yield") }]);
    expect(acknowledged(outbox, 5).frames).toEqual([{ seq: 6, body: frame("yield") }]);
    expect(acknowledged(said(outbox, 4), 5).frames).toEqual([]);
  });

  test("over lossy connections the edge gets every frame once and in order", () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant("say" as const), durable: fc.boolean() }),
      fc.record({ do: fc.constant("sync" as const) }),
      fc.record({ do: fc.constant("deliver" as const), count: fc.nat(4), ack: fc.boolean() }),
      fc.record({ do: fc.constant("reconnect" as const) }),
    );
    fc.assert(
      fc.property(fc.array(step), (story) => {
        let outbox = outboxOf([], 1);
        let left = 0;
        let seen = 0;
        const got: string[] = [];
        const deliver = (count: number) => {
          for (const { seq, body } of due(outbox, left).slice(0, count)) {
            left = seq;
            outbox = said(outbox, seq);
            if (seq <= seen) continue;
            expect(seq).toBe(seen + 1);
            seen = seq;
            got.push(body.t);
          }
        };
        let told = 0;
        for (const each of story) {
          if (each.do === "say") {
            told += 1;
            outbox = enqueue(outbox, frame(String(told)), each.durable);
          } else if (each.do === "sync") outbox = synced(outbox, outbox.nextSeq - 1);
          else if (each.do === "reconnect") left = outbox.acked;
          else {
            deliver(each.count);
            if (each.ack) outbox = acknowledged(outbox, seen);
          }
        }
        outbox = synced(outbox, outbox.nextSeq);
        left = outbox.acked;
        deliver(Number.POSITIVE_INFINITY);
        expect(got).toEqual(Array.from({ length: told }, (_, i) => String(i + 1)));
      }),
    );
  });
});
