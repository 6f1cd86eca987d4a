/** What a job's state needs to be read and uploaded in, at the most; of a short notice half of it. */
const KEEP_MS = 10_000;

/** CKP-1: so long after a notice jobs that keep what they have done stop doing more, to have it in the store when it is over. */
export function pauseAfter(noticeMs: number): number {
  return noticeMs - Math.min(KEEP_MS, noticeMs / 2);
}
