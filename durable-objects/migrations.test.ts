import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { migrate } from "./migrations.ts";

/** A fresh object's SQL storage; which class it is of does not matter, its own tables stay apart. */
async function withSql(name: string, act: (sql: SqlStorage) => void): Promise<void> {
  await runInDurableObject(env.BOOK.getByName(name), (_object, state) => {
    state.storage.sql.exec("DROP TABLE migrations");
    act(state.storage.sql);
  });
}

const first = "CREATE TABLE sheep (name TEXT)";
const second = "ALTER TABLE sheep ADD COLUMN colour TEXT";

test("runs each step once, in order, also when the code brings more", () =>
  withSql("grows", (sql) => {
    migrate(sql, [first]);
    migrate(sql, [first]);
    migrate(sql, [first, second]);
    sql.exec("INSERT INTO sheep (name, colour) VALUES ('Dolly', 'white')");
    migrate(sql, [first, second]);
    expect(sql.exec("SELECT * FROM sheep").one()).toEqual({ name: "Dolly", colour: "white" });
  }));

test("refuses changed, reordered and removed history, and touches nothing", () =>
  withSql("changed", (sql) => {
    migrate(sql, [first, second]);
    const before = sql.exec("SELECT * FROM migrations").toArray();
    expect(() => migrate(sql, [`${first} STRICT`, second])).toThrow("migration 0 was changed");
    expect(() => migrate(sql, [second, first])).toThrow("migration 0 was changed");
    expect(() => migrate(sql, [first])).toThrow("1 migration(s) ahead");
    expect(sql.exec("SELECT * FROM migrations").toArray()).toEqual(before);
  }));
