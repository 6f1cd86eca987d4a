/** The largest object, bytes: what all of a job's inputs or outputs may come to. */
export const OBJECT_LIMIT = 64 * 2 ** 20;
