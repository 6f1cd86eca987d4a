import { z } from "zod";
import { Bytes32 } from "./ids.ts";
import { IntentDone, IntentKey } from "./intent-answer.ts";
import { IntentRefusalCode } from "./intent-refusals.ts";

const object = z.literal("intent");

/**
 * An intent as the API shows it. Open objects, as all views: an older client must survive a newer edge's additions. Its
 * fields are named as those of the typed data that it is made of.
 */
export const IntentView = z.discriminatedUnion("status", [
  z.object({ ...IntentDone.shape, object }),
  z.object({ object, status: z.literal("pending"), key: IntentKey, txHash: Bytes32.nullable() }),
  z.object({
    object,
    status: z.literal("rejected"),
    key: IntentKey,
    code: IntentRefusalCode,
    detail: z.string(),
    /** What helps. */
    hint: z.string(),
  }),
]);
export type IntentView = z.infer<typeof IntentView>;
