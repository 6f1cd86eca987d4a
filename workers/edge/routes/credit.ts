import { readCredit } from "@gpux/durable-objects/credit";
import { CreditView } from "@gpux/protocol/credit";
import { Address } from "@gpux/protocol/ids";
import { z } from "zod";
import { jsonAnswer } from "../json-answer.ts";
import { refuse } from "../refusal.ts";
import { type Mounted, NO_BODY, signedRoute } from "../route.ts";

const getCredit = signedRoute(
  {
    method: "get",
    path: "/v1/credit",
    summary:
      "A payer's money for one spender and this edge's meter, as it is on chain: the principal is payer, spender or both",
    params: z.strictObject({}),
    query: z.strictObject({ payer: Address.optional(), spender: Address.optional() }),
    body: NO_BODY,
    answers: { 200: { description: "The credit", schema: CreditView } },
    scope: "read",
    standing: "asked",
    refusals: ["invalid_request", "forbidden", "chain_unavailable"],
  },
  async ({ config, query }, { address }) => {
    const { payer = address, spender = address } = query;
    if (payer !== address && spender !== address) return refuse("forbidden", "it is a credit of others");
    const { rpcUrl, meter, settlement } = config;
    const read = await readCredit({ rpcUrl, meter, escrow: settlement.escrow }, payer, spender).catch(
      (error: unknown) => {
        console.error(JSON.stringify({ event: "credit_unknown", payer, error: String(error) }));
        return null;
      },
    );
    if (read === null) return refuse("chain_unavailable", "no node says what the credit holds");
    return jsonAnswer(CreditView, {
      object: "credit",
      payer,
      spender,
      meter,
      balance: read.amount,
      ...(read.releaseAt === 0 ? {} : { release_at: new Date(read.releaseAt * 1_000).toISOString() }),
    });
  },
);

export const creditRoutes: readonly Mounted[] = [getCredit];
