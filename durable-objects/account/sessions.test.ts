import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { LeaseId } from "@gpux/protocol/ids";
import { type SessionGrant, type SessionId, sessionIdOf } from "@gpux/protocol/session";
import { expect, test } from "vitest";
import type { LeaseRpc, Principal } from "../interfaces.ts";
import { AccountSessions } from "./sessions.ts";

const NOW = 1_800_000_000_000;
const id = sessionIdOf(new Uint8Array(16).fill(1));
const by: Principal = {
  address: `0x${"aa".repeat(20)}`,
  nonce: "12345678",
  expires: NOW / 1_000 + 60,
  session: { id, scopes: ["jobs"], bearer: false },
};
const grant: SessionGrant = {
  v: 1,
  id,
  address: by.address,
  key: { kty: "oct" },
  scopes: ["jobs"],
  cap: 1_000n,
  expires: NOW / 1_000 + 3_600,
  audience: "edge.test",
  chain: 10,
};
const lease = (n: number) => LeaseId.parse(`lse_${String.fromCharCode(96 + n).repeat(32)}`);

/** Leases as the account sees them: what they were told, whether they can be reached, and what they have in use. */
class Leases {
  readonly ceilings = new Map<string, bigint>();
  /** The numbers of the words that each has heard. */
  readonly turns = new Map<string, number[]>();
  readonly revoked = new Set<string>();
  readonly unreachable = new Set<string>();
  used = 0n;
  /** Runs while a lease is asked what it uses. */
  meanwhile: () => void = () => {};

  getByName(name: string) {
    const session: Pick<LeaseRpc, "admitSession" | "trimSession" | "revokeSession"> = {
      admitSession: async (_: SessionId, _until, ceiling, turn) => {
        this.turns.set(name, [...(this.turns.get(name) ?? []), turn]);
        this.ceilings.set(name, ceiling);
        return { ok: true };
      },
      trimSession: async (_, _until, turn) => {
        this.turns.set(name, [...(this.turns.get(name) ?? []), turn]);
        this.meanwhile();
        this.ceilings.set(name, this.used);
        return this.used;
      },
      revokeSession: async () => {
        if (this.unreachable.has(name)) throw new Error("no lease answers");
        this.revoked.add(name);
      },
    };
    return session;
  }
}

async function inAccount(
  name: string,
  act: (life: () => AccountSessions, leases: Leases) => Promise<void>,
): Promise<void> {
  await runInDurableObject(env.ACCOUNT.getByName(name), async (_, { storage }) => {
    const leases = new Leases();
    const life = () => new AccountSessions(storage.sql, leases);
    expect(life().open(grant, NOW).ok).toBe(true);
    await act(life, leases);
  });
}

test("SES-5 what is set aside over all leases never passes the cap, over lives of the object", () =>
  inAccount("account-sessions-a", async (life, leases) => {
    leases.used = 300n;
    expect(await life().admit(by, lease(1), 300n, NOW)).toEqual({ ok: true });
    expect(await life().admit(by, lease(2), 300n, NOW)).toEqual({ ok: true });
    expect(await life().admit(by, lease(3), 400n, NOW)).toEqual({ ok: true });
    expect([...leases.ceilings.values()]).toEqual([300n, 300n, 400n]);
    expect(await life().admit(by, lease(1), 401n, NOW)).toMatchObject({ code: "session_cap_exceeded" });
    expect(life().list()[0]).toMatchObject({ cap: 1_000n, reserved: 900n });
  }));

test("SES-5 a lease gets some room to itself, and gives it back when another needs it", () =>
  inAccount("account-sessions-b", async (life, leases) => {
    await life().admit(by, lease(1), 10n, NOW);
    expect(leases.ceilings.get(lease(1))).toBe(250n);
    leases.used = 10n;
    expect(await life().admit(by, lease(2), 990n, NOW)).toEqual({ ok: true });
    expect(leases.ceilings).toEqual(
      new Map([
        [lease(1), 10n],
        [lease(2), 990n],
      ]),
    );
  }));

test("SES-5 each word to a lease has a higher number than all before it, over lives of the object", () =>
  inAccount("account-sessions-g", async (life, leases) => {
    await life().admit(by, lease(1), 900n, NOW);
    await life().admit(by, lease(2), 900n, NOW);
    await life().admit(by, lease(1), 900n, NOW);
    expect(leases.turns.get(lease(1))).toEqual([1, 2, 4]);
    expect(leases.turns.get(lease(2))).toEqual([1, 2]);
  }));

test("SES-6 a lease that cannot be reached is told when it can, and nobody is told of what has ended", () =>
  inAccount("account-sessions-c", async (life, leases) => {
    await life().admit(by, lease(1), 0n, NOW);
    await life().admit(by, lease(2), 0n, NOW);
    leases.unreachable.add(lease(2));
    const first = life();
    expect(first.revoke(id, NOW)).toBe(true);
    expect(await first.tell(NOW)).toBe(2_000);
    expect(await first.tell(NOW)).toBe(4_000);
    expect(first.list()[0]).toMatchObject({ untold_leases: 1 });
    expect([...leases.revoked]).toEqual([lease(1)]);
    leases.unreachable.clear();
    expect(await life().tell(NOW)).toBeNull();
    expect([...leases.revoked]).toEqual([lease(1), lease(2)]);
    expect(await life().tell(grant.expires * 1_000)).toBeNull();
  }));

test("SES-6 a session that is revoked while another lease is asked to give back is vouched for no more", () =>
  inAccount("account-sessions-d", async (life, leases) => {
    const account = life();
    await account.admit(by, lease(1), 900n, NOW);
    leases.meanwhile = () => account.revoke(id, NOW);
    expect(await account.admit(by, lease(2), 900n, NOW)).toMatchObject({ code: "session_revoked" });
    expect(leases.ceilings.has(lease(2))).toBe(false);
  }));

test("what is over stays for a day to be seen, and makes room", () =>
  inAccount("account-sessions-e", async (life) => {
    const later = grant.expires * 1_000;
    const next = { ...grant, id: sessionIdOf(new Uint8Array(16).fill(2)), expires: grant.expires + 90_000 };
    expect(life().refusal(by, later)).toEqual({ ok: false, code: "session_expired" });
    expect(life().list()).toHaveLength(1);
    life().open(next, later + 86_400_000);
    expect(
      life()
        .list()
        .map((view) => view.id),
    ).toEqual([next.id]);
  }));
