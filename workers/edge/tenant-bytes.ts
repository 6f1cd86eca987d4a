/**
 * Bytes that a tenant made, from the API's own origin: never rendered, never sniffed, never with this origin's rights,
 * whatever type they claim.
 */
export function tenantBytes(
  object: Pick<R2Object, "size" | "httpEtag">,
  body: ReadableStream | null,
  contentType: string,
  filename: string,
): Response {
  return new Response(body, {
    headers: {
      "content-type": /^[\w.+-]+\/[\w.+-]+$/.test(contentType) ? contentType : "application/octet-stream",
      "content-length": String(object.size),
      "content-disposition": `attachment; filename="${filename.replace(/[^\w.-]/g, "_")}"`,
      "content-security-policy": "sandbox; default-src 'none'",
      "x-content-type-options": "nosniff",
      "cross-origin-resource-policy": "cross-origin",
      etag: object.httpEtag,
    },
  });
}
