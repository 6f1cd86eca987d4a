import { ARRAY_BUGS } from "./array-bugs.ts";
import type { Bug } from "./bug.ts";
import { CREDIT_BUGS } from "./credit-bugs.ts";
import { JOB_BUGS } from "./job-bugs.ts";
import { MARKET_BUGS } from "./market-bugs.ts";
import { MONEY_BUGS } from "./money-bugs.ts";
import { MOVE_BUGS } from "./move-bugs.ts";
import { PREFETCH_BUGS } from "./prefetch-bugs.ts";
import { SESSION_BUGS } from "./session-bugs.ts";

/** All planted bugs. */
export const BUGS: readonly Bug[] = [
  ...ARRAY_BUGS,
  ...JOB_BUGS,
  ...MONEY_BUGS,
  ...MARKET_BUGS,
  ...CREDIT_BUGS,
  ...SESSION_BUGS,
  ...MOVE_BUGS,
  ...PREFETCH_BUGS,
];
