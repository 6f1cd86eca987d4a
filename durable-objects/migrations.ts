/**
 * Brings an object's schema up to date; call it first in the constructor, before anything reads.
 *
 * `steps` is append-only: a step that has run anywhere is never edited, a change is a new step. The text of
 * each applied step is kept beside the data, so that edited, reordered or removed history is refused
 * (a throw: the deployed code is wrong) instead of running against a schema it does not know.
 *
 * There is no await in here and an object's writes without an await between them commit together, so a
 * crash leaves either none or all of the pending steps.
 */
export function migrate(sql: SqlStorage, steps: readonly string[]): void {
  sql.exec("CREATE TABLE IF NOT EXISTS migrations (step INTEGER PRIMARY KEY, statement TEXT NOT NULL)");
  const applied = sql
    .exec<{ step: number; statement: string }>("SELECT step, statement FROM migrations ORDER BY step")
    .toArray();
  if (applied.length > steps.length) {
    throw new Error(
      `this storage is ${applied.length - steps.length} migration(s) ahead of the code; deploy newer code`,
    );
  }
  for (const [index, row] of applied.entries()) {
    if (row.step !== index || row.statement !== steps[index]) {
      throw new Error(`migration ${index} was changed after it ran; append a new step instead`);
    }
  }
  for (const [index, statement] of steps.entries()) {
    if (index < applied.length) continue;
    sql.exec(statement);
    sql.exec("INSERT INTO migrations (step, statement) VALUES (?, ?)", index, statement);
  }
}
