import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { GpuxError } from "@gpux/sdk";
import { expect, it } from "vitest";
import { EXIT, exitCodeOf, explain, failureJson, printable, UsageError, WalletError } from "./outcome.ts";

const refused = (code: ErrorCode) => new GpuxError({ code, title: "t", status: ERRORS[code].status });
const local = (code: string) => new GpuxError({ code, title: "t" });

it.each([
  ["a bad command line", new UsageError("x"), 2],
  ["a request outside the schema", local("request_invalid"), 2],
  ["no wallet", new WalletError("x", "y"), 3],
  ["an unsigned request", refused("signature_missing"), 3],
  ["a replayed signature", refused("signature_replayed"), 3],
  ["a key that may not", refused("forbidden"), 3],
  ["no lease", refused("payment_required"), 4],
  ["no money", refused("insufficient_funds"), 4],
  ["a full lease", refused("lease_underfunded"), 4],
  ["offers above the limit", refused("price_below_offers"), 4],
  ["a quote that is not what was asked", local("quote_mismatch"), 4],
  ["a signature above the limit", local("spend_limit"), 4],
  ["a time-out", local("timed_out"), 124],
  ["Ctrl-C", local("aborted"), 130],
  ["no network", local("network"), 1],
  ["no capacity", refused("no_capacity"), 1],
  ["an unknown job", refused("job_unknown"), 1],
  ["a bug", new TypeError("x is undefined"), 1],
])("ends %s with its own exit code", (_, error, code) => {
  expect(exitCodeOf(error)).toBe(code);
});

it("keeps the exit codes that scripts know", () => {
  expect(EXIT).toEqual({
    ok: 0,
    failure: 1,
    usage: 2,
    auth: 3,
    payment: 4,
    job: 5,
    timeout: 124,
    interrupted: 130,
  });
});

it("says title, detail, hint, code and request id, and no stack", () => {
  const error = new GpuxError({
    code: "no_capacity",
    title: "No node fits",
    detail: "0 of 3",
    hint: "Later.",
    requestId: "req_1",
  });
  expect(explain(error, false)).toBe(
    "error: No node fits\n  0 of 3\n  hint: Later.\n  code: no_capacity  request: req_1\n",
  );
  expect(explain(new TypeError("boom"), false)).not.toContain("at ");
  expect(explain(new TypeError("boom"), true)).toContain("outcome.test.ts");
  expect(failureJson(error)).toMatchObject({ error: { code: "no_capacity", request_id: "req_1" } });
});

it("lets nobody else's text move the cursor or forge a line's end", () => {
  expect(printable("\x1b[2Jfine\x07\r\u202e\u2028")).toBe("\ufffd[2Jfine\ufffd\ufffd\ufffd\ufffd");
  expect(printable("two\n\tlines")).toBe("two\n\tlines");
});
