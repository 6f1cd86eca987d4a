import { sign } from "viem/accounts";
import { recoverPublicKey } from "viem/utils";
import type { Curve } from "./curve.ts";

/**
 * Everywhere else, browsers above all: viem's own, in JavaScript. They check a signature or two per quote and receipt,
 * and how a bundler serves a binary is nobody's convention.
 */
export const curve: Curve = {
  async recover(digest, signature) {
    try {
      return await recoverPublicKey({ hash: digest, signature });
    } catch {
      // It throws for what recovers no key.
      return null;
    }
  },
  async sign(digest, key) {
    const { r, s, yParity } = await sign({ hash: digest, privateKey: key });
    return { r, s, yParity: yParity === 1 ? 1 : 0 };
  },
};
