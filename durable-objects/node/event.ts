import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { FromNode, ToNode } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import type { HoldRequest, Outcome, Refused } from "../interfaces.ts";
import type { NodeState } from "./state.ts";

export type NodeEvent =
  | { readonly t: "connected"; readonly connection: string }
  | { readonly t: "frame"; readonly connection: string; readonly frame: FromNode }
  | { readonly t: "bad_frame"; readonly connection: string; readonly reason: string }
  /** `lost`: found to be gone, nobody knows since when. */
  | { readonly t: "disconnected"; readonly connection: string; readonly lost?: boolean }
  /** The socket's last ping, seen while somebody asked about the node. */
  | { readonly t: "heartbeat"; readonly at: number }
  | { readonly t: "hold"; readonly request: HoldRequest }
  | { readonly t: "unanswered"; readonly lease: LeaseId }
  | { readonly t: "reserve"; readonly lease: LeaseId; readonly until: number }
  | { readonly t: "open"; readonly lease: LeaseId; readonly terms: LeaseTerms }
  | { readonly t: "rest" | "rouse"; readonly lease: LeaseId; readonly turn: number }
  | { readonly t: "dial"; readonly lease: LeaseId }
  /** `paid`: base units that were settled of it; absent: it was never funded. */
  | { readonly t: "release"; readonly lease: LeaseId; readonly paid?: bigint }
  | { readonly t: "published"; readonly version: number; readonly books: readonly string[] }
  | { readonly t: "publish_failed" }
  /** `draws`: random numbers below 2^32 ({@link DRAWS} of them). */
  | { readonly t: "challenge"; readonly id: string; readonly draws: readonly number[] }
  | { readonly t: "tick" };

export type NodeEffect =
  /** To the node's present socket, if there is one. */
  | { readonly t: "send"; readonly frame: ToNode }
  | { readonly t: "close"; readonly connection: string; readonly code: number; readonly reason: string }
  | {
      readonly t: "close_others";
      readonly connection: string;
      readonly code: number;
      readonly reason: string;
    }
  | { readonly t: "answer"; readonly lease: LeaseId; readonly outcome: Outcome };

export type NodeStep =
  | { readonly ok: true; readonly next: NodeState; readonly effects: readonly NodeEffect[] }
  | Refused;

export const refused = (code: Refused["code"], detail?: string): Refused =>
  detail === undefined ? { ok: false, code } : { ok: false, code, detail };
export const unchanged = (state: NodeState): NodeStep => ({ ok: true, next: state, effects: [] });
