import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Share } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { LeaseId } from "@gpux/protocol/ids";
import type { LeaseHouse, Sold } from "../control/control.ts";
import { type Journal, openJournal } from "../journal.ts";
import { ownClock } from "../link/frames.ts";
import { type Book, BookEntry, enter, newBook, readBook } from "./book.ts";
import { type ServedLease, serveLease } from "./lease.ts";
import { putAside } from "./vouchers.ts";
import type { Workshop } from "./workshop.ts";

export interface RosterOptions {
  readonly workshop: Workshop;
  readonly onFault: (error: unknown) => void;
  /** A lease came or went, or a job of one began or ended. */
  readonly onChange: (what: "leases" | "began" | "ended") => void;
}

/**
 * All leases of this node. One that rests is a journal on the disk and a name here: its resources are free for others,
 * and it has no socket until the edge has work for it.
 */
export interface Roster extends LeaseHouse {
  /** Those that have a socket. */
  serving(): readonly ServedLease[];
  /** Takes up what the journals of an earlier life say. */
  takeUp(): Promise<void>;
  /**
   * Each lease starts nothing, lets what runs end within so long, and is closed; so is one that is opened meanwhile:
   * the edge's word crossed ours, and nobody else can sign its close.
   */
  drain(deadlineS: number): Promise<void>;
  /** Leaves all at once; the journals stay for the next start. */
  leave(): Promise<void>;
}

export function createRoster({ workshop, onFault, onChange }: RosterOptions): Roster {
  const { paths, log, house } = workshop;
  const served = new Map<LeaseId, ServedLease>();
  const resting = new Map<LeaseId, Share>();
  /** Told to rest with a job under way: their resources are others' from then on. */
  const overdue = new Set<LeaseId>();
  let leaving = false;
  /** When a drain ends, by {@link ownClock}; null without one. */
  let drainBy: number | null = null;
  const drains = new Set<Promise<void>>();

  const openBook = (id: LeaseId) => openJournal(join(paths.leases, `${id}.jsonl`), BookEntry);

  function serve(id: LeaseId, book: Book, journal: Journal<BookEntry>): void {
    const lease = serveLease({
      workshop,
      id,
      book,
      journal,
      onEnd: (end) => {
        if (end.reason === "stopped") return;
        void forget(id, `its socket was closed: ${end.detail}`, end.reason === "gone").catch(onFault);
      },
      onFault,
      onChange,
    });
    resting.delete(id);
    served.set(id, lease);
    lease.start();
    onChange("leases");
  }

  async function open(id: LeaseId, terms: LeaseTerms, sold: Sold, refusal: string | null) {
    overdue.delete(id);
    const known = served.get(id);
    if (known !== undefined) return known.rouse();
    if (leaving) return;
    for (const each of overdue) await restNow(each);
    const opened = await openBook(id);
    const book = readBook(opened.entries) ?? newBook(terms, sold, refusal);
    if (opened.entries.length === 0) {
      const { gpus, resources, text } = sold;
      opened.journal.append({ is: "lease", terms, resources, gpus: [...gpus], text, refusal });
    }
    if (book.resting) {
      const awake: BookEntry = { is: "resting", resting: false };
      opened.journal.append(awake);
      enter(book, awake);
    }
    await opened.journal.sync();
    log({ level: "info", event: "lease.opened", text: `${id} is ours to serve` });
    serve(id, book, opened.journal);
    // Not waited for here: the control socket's next frames would wait with it.
    const lease = served.get(id);
    if (lease !== undefined && drainBy !== null) beginDrain(lease, drainBy);
  }

  function beginDrain(lease: ServedLease, by: number): void {
    const drained = lease
      .drain(Math.max(0, Math.ceil((by - ownClock()) / 1_000)))
      .catch(onFault)
      .finally(() => drains.delete(drained));
    drains.add(drained);
  }

  /**
   * With a job under way the edge may have changed its mind since, and `open` follows; or the word that ended the job is
   * stuck in a dead connection. So the job goes on, but for no longer than nobody else is given its GPUs.
   */
  async function rest(id: LeaseId): Promise<void> {
    if (served.get(id)?.isWorking() === true) overdue.add(id);
    else await restNow(id);
  }

  async function restNow(id: LeaseId): Promise<void> {
    overdue.delete(id);
    const lease = served.get(id);
    if (lease === undefined) return;
    served.delete(id);
    resting.set(id, { gpus: lease.gpus, resources: lease.resources });
    await lease.rest();
    log({ level: "info", event: "lease.resting", text: `${id} has no work; its GPUs are free` });
    onChange("leases");
  }

  /** For what needs no resources. It goes on resting. */
  async function dial(id: LeaseId): Promise<void> {
    if (!resting.has(id) || leaving) return;
    const opened = await openBook(id);
    const book = readBook(opened.entries);
    if (book !== null) serve(id, book, opened.journal);
  }

  /** `over`: the edge said that the lease has ended; else its journal stays for a later start. */
  async function forget(id: LeaseId, why: string, over = true): Promise<void> {
    overdue.delete(id);
    const lease = served.get(id);
    if (lease !== undefined) {
      served.delete(id);
      await (over ? lease.forget() : lease.stop());
    } else if (resting.delete(id)) await remove(id);
    else return;
    log({ level: over ? "info" : "error", event: over ? "lease.over" : "lease.lost", text: `${id}: ${why}` });
    onChange("leases");
  }

  async function remove(id: LeaseId): Promise<void> {
    const { entries, journal } = await openBook(id);
    const book = readBook(entries);
    const { chain_id: chainId, escrow } = house.config;
    if (book !== null) await putAside(paths, { chainId, escrow }, { id, book }, workshop.chain);
    await journal.remove();
  }

  async function takeUp(): Promise<void> {
    await mkdir(paths.leases, { recursive: true, mode: 0o700 });
    for (const name of await readdir(paths.leases)) {
      const id = LeaseId.safeParse(name.replace(/\.jsonl$/, ""));
      if (!id.success) continue;
      const opened = await openBook(id.data);
      if (opened.cutBytes > 0)
        log({
          level: "warn",
          event: "journal.cut",
          text: `${id.data}: ${opened.cutBytes} torn bytes dropped`,
        });
      const book = readBook(opened.entries);
      // It was being created when the agent died, and nobody was told of it.
      if (book === null) await opened.journal.remove();
      else if (book.resting) {
        resting.set(id.data, { gpus: book.gpus, resources: book.resources });
        await opened.journal.close();
      } else serve(id.data, book, opened.journal);
    }
  }

  return {
    list: () => [
      ...[...served.values()].map(({ id, gpus, resources, isResting }) => ({
        id,
        gpus,
        resources,
        isResting: isResting() || overdue.has(id),
      })),
      ...[...resting].map(([id, share]) => ({ id, ...share, isResting: true })),
    ],
    serving: () => [...served.values()],
    open,
    rest,
    dial,
    yield: (id, noticeS) => served.get(id)?.yield(noticeS),
    forget,
    takeUp,
    async drain(deadlineS) {
      drainBy = ownClock() + deadlineS * 1_000;
      for (const lease of served.values()) beginDrain(lease, drainBy);
      while (drains.size > 0) await Promise.all(drains);
    },
    async leave() {
      leaving = true;
      await Promise.all([...served.values()].map((lease) => lease.stop()));
    },
  };
}
