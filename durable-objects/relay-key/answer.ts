import type { Intent, IntentAnswer } from "@gpux/protocol/intent";
import { newest } from "./flight.ts";
import type { Flights } from "./flight-store.ts";
import { confirmationFor, isEnough, type Policy } from "./policy.ts";
import type { Known } from "./store.ts";

/** How an intent stands, as its submitter is told. */
export function answerOf({ key, intent, state }: Known, flights: Flights, policy: Policy): IntentAnswer {
  const { life } = state;
  switch (life.state) {
    case "included":
    case "superseded":
      return {
        status: "done",
        key,
        superseded: life.state === "superseded",
        txHash: life.state === "included" ? life.hash : null,
        ...life.fulfilment,
        cost: life.state === "included" ? life.cost : null,
        confirmation: life.confirmation,
        enough: isEnough(life.confirmation, confirmationFor(policy, stakeOf(intent))),
      };
    case "rejected":
      return { status: "rejected", key, code: life.code, detail: life.detail };
    case "signed": {
      const flight = flights.read(life.nonce);
      return { status: "pending", key, txHash: flight === null ? null : newest(flight.state).hash };
    }
    case "held":
    case "received":
    case "verified":
    case "simulated":
      return { status: "pending", key, txHash: null };
  }
}

/** Token base units that somebody may be tempted to take back by a reorganisation: only money that comes in is acted on. */
function stakeOf(intent: Intent): bigint {
  switch (intent.kind) {
    case "fund":
      return sum(intent.amounts);
    case "deposit":
      return intent.amount;
    case "allocate":
      return sum(intent.fundedTo);
    default:
      return 0n;
  }
}

const sum = (amounts: readonly bigint[]) => amounts.reduce((total, amount) => total + amount, 0n);
