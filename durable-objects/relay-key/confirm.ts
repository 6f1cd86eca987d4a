import type { Bytes32 } from "@gpux/protocol/ids";
import type { Confirmation } from "@gpux/protocol/intent";
import type { Chain } from "./chain.ts";
import { isEnough, type Policy } from "./policy.ts";

/** Where something of ours was seen on chain, until that is final. */
export interface Anchor {
  readonly number: number;
  readonly hash: Bytes32;
  readonly confirmation: Confirmation;
}

export interface Standing {
  /** Blocks that are no longer on the chain. */
  readonly gone: ReadonlySet<Bytes32>;
  /** Blocks that have become harder, and how hard they are now. */
  readonly hardened: ReadonlyMap<Bytes32, Confirmation>;
  /** Blocks that are on the chain, in one view: the next look's `together`. */
  readonly standing: ReadonlySet<Bytes32>;
  readonly head: number;
}

/**
 * Compares what we believe to be on chain with what is: newest first, down to the block that both have in common. A
 * block is called harder only after its own hash was looked at. A height that the node does not know yet says nothing:
 * it may lag.
 *
 * `together`: blocks that stood in one view. One of them that still stands vouches for those below; it cannot vouch for
 * any other, for a reorganisation may have come between the two, and then nobody would send again what it took.
 * @throws NodeFault
 */
export async function standingOf(
  chain: Chain,
  anchors: readonly Anchor[],
  policy: Policy,
  together: ReadonlySet<Bytes32>,
): Promise<Standing> {
  const [head, safe, finalized] = await Promise.all([
    chain.head(),
    chain.block("safe"),
    chain.block("finalized"),
  ]);
  const levelAt = (height: number): Confirmation => {
    const depth = head.number - height;
    if (finalized !== null && height <= finalized.number && depth >= policy.finalizedDepth)
      return "finalized";
    if (safe !== null && height <= safe.number && depth >= policy.safeDepth) return "safe";
    return depth >= policy.confirmBlocks ? "confirmed" : "included";
  };
  const heights = [...new Set(anchors.map((anchor) => anchor.number))].toSorted((a, b) => b - a);
  const gone = new Set<Bytes32>();
  const hardened = new Map<Bytes32, Confirmation>();
  const standing = new Set<Bytes32>();
  let vouched = false;
  for (const height of heights) {
    const here = anchors.filter((anchor) => anchor.number === height);
    const level = levelAt(height);
    const harder = here.some((anchor) => !isEnough(anchor.confirmation, level));
    if (vouched && !harder && here.every((anchor) => together.has(anchor.hash))) {
      for (const anchor of here) standing.add(anchor.hash);
      continue;
    }
    const block = await chain.block(height);
    if (block === null) continue;
    for (const anchor of here) {
      if (block.hash.toLowerCase() !== anchor.hash) gone.add(anchor.hash);
      else {
        standing.add(anchor.hash);
        vouched ||= together.has(anchor.hash);
        if (!isEnough(anchor.confirmation, level)) hardened.set(anchor.hash, level);
      }
    }
  }
  return { gone, hardened, standing, head: head.number };
}
