import { decodeBase64Url } from "@gpux/protocol/http-signature/base64url";
import { Bytes32 } from "@gpux/protocol/ids";
import { p256Address, serializeP256, toP256 } from "@gpux/protocol/p256";
import { bytesToHex, hashTypedData, hexToBytes } from "viem/utils";
import type { Consumer } from "./account.ts";
import { GpuxError } from "./error.ts";
import type { SessionKeyPair } from "./session-key.ts";

/**
 * A P-256 key of WebCrypto's, which may be one that cannot be read out, as a lease's consumer: nobody is prompted. The
 * contract knows it by the last 20 bytes of keccak256(x, y). Throws `request_invalid` for a key on another curve.
 */
export function keyConsumer({ publicJwk, sign }: SessionKeyPair): Consumer {
  const [x, y] = publicJwk.kty === "EC" ? [coordinate(publicJwk.x), coordinate(publicJwk.y)] : [null, null];
  if (x === null || y === null)
    throw new GpuxError({
      code: "request_invalid",
      title: "The key cannot be a lease's consumer",
      hint: "Make it with newP256Key(): the escrow contract verifies P-256 and secp256k1 signatures.",
      detail: `its type is ${publicJwk.kty}`,
      fault: "tenant",
    });
  return {
    address: p256Address({ x, y }),
    async signTypedData(typedData) {
      const pair = bytesToHex(await sign(hexToBytes(hashTypedData(typedData))));
      // The lower of the two values of s, which alone the contract takes.
      const parts = toP256(`${pair}${x.slice(2)}${y.slice(2)}`);
      if (parts === null) throw new TypeError("ECDSA on P-256 signs with 64 bytes");
      return serializeP256(parts);
    },
  };
}

function coordinate(text: string): Bytes32 | null {
  const bytes = decodeBase64Url(text);
  return bytes?.length === 32 ? Bytes32.parse(bytesToHex(bytes)) : null;
}
