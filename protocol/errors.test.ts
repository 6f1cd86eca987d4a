import { expect, it } from "vitest";
import { Problem } from "./answers.ts";
import { ERRORS, type ErrorCode, JOB_FAILURES, JobFailureCode, problem } from "./errors.ts";

const isErrorCode = (key: string): key is ErrorCode => key in ERRORS;
const errors = Object.keys(ERRORS).filter(isErrorCode);
const sentence = /^[A-Z`/].*[^.]$/;
const advice = /^[A-Z`/].*\.$/;

it.each(errors)("%s tells a client what happened, whose doing it is and what to do", (code) => {
  const { status, title, hint, fault, retryable } = ERRORS[code];
  expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
  expect(title).toMatch(sentence);
  expect(hint).toMatch(advice);
  expect(status).toBeGreaterThanOrEqual(400);
  expect(status).toBeLessThan(600);
  // RFC 9110 section 15: a 5xx says that we failed, and what is not the caller's doing may be tried again as it is.
  expect(fault === "tenant").toBe(status < 500);
  if (fault !== "tenant") expect(retryable).toBe(true);
});

it("answers 429 and 503 for what passes by itself, and only such may be tried again unchanged", () => {
  for (const code of errors) {
    const { status, retryable } = ERRORS[code];
    if (status === 429 || status === 503) expect(retryable, code).toBe(true);
    if ([400, 401, 402, 403, 404, 405, 410, 413, 415, 422].includes(status))
      expect(retryable, code).toBe(false);
  }
});

it("tells the codes apart: no two share a title", () => {
  const titles = errors.map((code) => ERRORS[code].title);
  expect(new Set(titles).size).toBe(titles.length);
});

it.each([...JobFailureCode.values])(
  "a job that failed by %s says whose fault, and what was charged",
  (code) => {
    const { title, hint, fault } = JOB_FAILURES[code];
    expect(title).toMatch(sentence);
    expect(hint).toMatch(advice);
    if (/nothing was charged/i.test(hint)) expect(fault).not.toBe("tenant");
  },
);

it("lists every failure and no other", () => {
  expect([...JobFailureCode.values].sort()).toEqual(Object.keys(JOB_FAILURES).sort());
  expect(JobFailureCode.safeParse("made_up").success).toBe(false);
});

it("writes a code as problem+json that our own clients read (RFC 9457)", () => {
  const body = problem("lease_underfunded", "req_1", "2 would be committed, 1 is funded", { wait: {} });
  expect(body).toMatchObject({
    status: 402,
    code: "lease_underfunded",
    detail: "2 would be committed, 1 is funded",
    fault: "tenant",
    retryable: false,
    request_id: "req_1",
    wait: {},
  });
  expect(body.type).toMatch(/\/lease_underfunded$/);
  expect(Problem.parse(body)).toEqual(body);
  expect(problem("internal", "req_2")).not.toHaveProperty("detail");
});
