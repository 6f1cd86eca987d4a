import { WorkerEntrypoint } from "cloudflare:workers";

// Bare workerd has no R2. This is the part of it that the edge uses, in memory, called by RPC in place of the binding.

const objects = new Map();

const hex = (bytes) =>
  Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
const facts = (key, { bytes, httpMetadata }) => ({
  key,
  size: bytes.byteLength,
  httpEtag: `"${key}"`,
  httpMetadata,
});

export class Objects extends WorkerEntrypoint {
  head(key) {
    const object = objects.get(key);
    return object === undefined ? null : facts(key, object);
  }

  get(key) {
    const object = objects.get(key);
    if (object === undefined) return null;
    return {
      ...facts(key, object),
      body: new Response(object.bytes).body,
      text: () => new TextDecoder().decode(object.bytes),
    };
  }

  async put(key, value, { sha256, httpMetadata }) {
    const bytes = await new Response(value).arrayBuffer();
    if (hex(await crypto.subtle.digest("SHA-256", bytes)) !== sha256)
      throw new Error("put: checksum (10037)");
    objects.set(key, { bytes, httpMetadata });
  }
}

export default { fetch: () => new Response(null, { status: 404 }) };
