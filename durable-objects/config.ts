import { createSeal, type SessionSeal } from "@gpux/protocol/http-signature/session-token";
import { Address } from "@gpux/protocol/ids";
import type { Settlement } from "@gpux/protocol/lease";
import { placeOf } from "@gpux/protocol/place";
import { GpuModel } from "@gpux/protocol/resources";
import { createHasher, type TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { z } from "zod";
import type { ObjectEnv } from "./bindings.ts";
import type { Shards } from "./books.ts";

const whole = (max: number) =>
  z
    .string()
    .regex(/^(0|[1-9][0-9]{0,15})$/, "a whole number")
    .transform(Number)
    .refine((value) => value <= max, `at most ${max}`);

/** The edge Worker's `[vars]` (wrangler.toml), as its routes and objects use them. */
const Vars = z.object({
  TOKEN: Address,
  TOKEN_NAME: z.string().min(1),
  TOKEN_VERSION: z.string().min(1),
  METER_ADDRESS: Address,
  FEE_RECIPIENT: Address,
  FEE_BPS: whole(5_000),
  RPC_URL: z.url(),
  PUBLIC_ORIGIN: z.url().refine((url) => new URL(url).origin === url, "an origin, without a path"),
  SESSION_KEYS: z.string(),
  METRICS_TOKEN: z
    .string()
    .regex(/^[!-~]{32,512}$/, "32 to 512 printable characters")
    .optional(),
  CHALLENGE_AFTER_S: whole(86_400).optional(),
  BOOK_SHARDS: z
    .string()
    .transform((text, context) => {
      try {
        return JSON.parse(text);
      } catch {
        context.addIssue({ code: "custom", message: 'JSON such as {"RTX_4090": 4}' });
        return z.NEVER;
      }
    })
    .pipe(z.record(z.union([GpuModel, z.literal("any")]), z.int().min(1).max(64)))
    .optional(),
});

export interface EdgeConfig {
  readonly chainId: number;
  /** Typed-data digests in this chain's and contract's domain. */
  readonly hasher: TypedDataHasher;
  readonly settlement: Settlement;
  readonly meter: Address;
  readonly feeRecipient: Address;
  readonly feeBps: number;
  readonly rpcUrl: string;
  readonly publicOrigin: string;
  /** Seals the grants of sessions, and tells which it has sealed. */
  readonly seal: SessionSeal;
  /** Who has it may read `/metrics`; null: nobody may. */
  readonly metricsToken: string | null;
  /** How many shards the Books of a GPU model have, and under `any` the directory. */
  readonly bookShards: Shards;
  /** From when a node is there without work to its first capacity challenge; milliseconds. */
  readonly challengeAfterMs: number;
}

const parsed = new WeakMap<object, EdgeConfig>();

/** Parsed once per isolate and `env`. Throws when a variable is missing or wrong: the deployment is, not the request. */
export function configOf(env: ObjectEnv): EdgeConfig {
  const known = parsed.get(env);
  if (known !== undefined) return known;
  const vars = Vars.parse(env);
  const place = placeOf(env);
  const config: EdgeConfig = {
    chainId: place.chainId,
    hasher: createHasher(place),
    settlement: {
      chain_id: place.chainId,
      escrow: place.escrow,
      token: vars.TOKEN,
      token_name: vars.TOKEN_NAME,
      token_version: vars.TOKEN_VERSION,
    },
    meter: vars.METER_ADDRESS,
    feeRecipient: vars.FEE_RECIPIENT,
    feeBps: vars.FEE_BPS,
    rpcUrl: vars.RPC_URL,
    publicOrigin: vars.PUBLIC_ORIGIN,
    seal: createSeal(vars.SESSION_KEYS),
    metricsToken: vars.METRICS_TOKEN ?? null,
    challengeAfterMs: (vars.CHALLENGE_AFTER_S ?? 300) * 1_000,
    bookShards: (model) => vars.BOOK_SHARDS?.[model] ?? 1,
  };
  parsed.set(env, config);
  return config;
}
