import { keyAccount } from "@gpux/protocol/key-account";
import { recoverSigner } from "@gpux/protocol/signature";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { expect, test } from "vitest";

// The same library as on Node (protocol/secp256k1/curve.test.ts), from the module that workerd gets.
test("SIG-1 inside workerd, digests are signed to viem's bytes and recover their signer", async () => {
  for (let n = 0; n < 20; n += 1) {
    const key = generatePrivateKey();
    const viems = privateKeyToAccount(key);
    const hash = generatePrivateKey();
    const signature = await keyAccount(key).sign({ hash });
    expect(signature).toBe(await viems.sign({ hash }));
    expect(await recoverSigner(hash, signature)).toBe(viems.address.toLowerCase());
    expect(await recoverSigner(key, signature)).not.toBe(viems.address.toLowerCase());
  }
});
