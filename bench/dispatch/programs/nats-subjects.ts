/** Where jobs are asked for and answered. */
export const JOBS = "gpux.bench.job";
/** Results of jobs that were taken before they were done, each under its id. */
export const RESULTS = "gpux.bench.result";

export const TIMEOUT_MS = 10_000;
