import { CreditOffer } from "@gpux/protocol/credit";
import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { Quote } from "@gpux/protocol/lease";
import { z } from "zod";
import type { PaymentNeeded, Refused } from "./interfaces.ts";

/**
 * What a refusal brings beside its problem, in wire form: the quote to sign, the credit that would do, the allowance to give, why the market has
 * nothing, or which job of an array it is for.
 */
export function promisedOf(refused: Refused | PaymentNeeded): object {
  const { ok, code, detail, ...promised } = {
    quote: undefined,
    credit: undefined,
    index: undefined,
    needs: undefined,
    ...refused,
  };
  const { quote, credit, index, needs: _ofTheAccount, ...rest } = promised;
  return {
    ...rest,
    ...(quote === undefined ? {} : { quote: z.encode(Quote, quote) }),
    ...(credit === undefined ? {} : { credit: z.encode(CreditOffer, credit) }),
    ...(index === undefined ? {} : errorAt(index, code, detail)),
  };
}

/** Which job of an array a refusal is for; none of them was taken. */
export function errorAt(index: number, code: ErrorCode, detail: string | undefined) {
  return { errors: [{ pointer: `/${index}`, detail: detail ?? ERRORS[code].title }] };
}
