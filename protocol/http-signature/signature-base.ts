import { serializeString } from "./structured-fields.ts";

/** The text that an HTTP signature signs (RFC 9421 section 2). */

/** The request as the server believes it was sent: `url` is absolute and its host is not taken from the client on trust. */
export type RequestHead = {
  readonly method: string;
  readonly url: string;
  readonly headers: { get(name: string): string | null };
};

/** Derived components (RFC 9421 section 2.2) that we sign or accept; every other name with an @ is refused. */
export const DERIVED_COMPONENTS = [
  "@method",
  "@authority",
  "@path",
  "@query",
  "@scheme",
  "@target-uri",
] as const;
type DerivedComponent = (typeof DERIVED_COMPONENTS)[number];

function isDerived(name: string): name is DerivedComponent {
  return DERIVED_COMPONENTS.some((known) => known === name);
}

const FIELD_NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;

/** Whether we can say what the component's value is: a derived one of ours, or a header field in lower case. */
export function isComponent(name: string): boolean {
  return isDerived(name) || FIELD_NAME.test(name);
}

function derivedValue(name: DerivedComponent, head: RequestHead, url: URL): string {
  switch (name) {
    case "@method":
      return head.method;
    case "@authority":
      // WHATWG URL already lower-cases the host and drops the scheme's default port (RFC 9421 section 2.2.3).
      return url.host;
    case "@path":
      return url.pathname;
    case "@query":
      // RFC 9421 section 2.2.7: an absent query is signed as a lone question mark.
      return url.search === "" ? "?" : url.search;
    case "@scheme":
      return url.protocol.slice(0, -1);
    case "@target-uri":
      // A fragment begins with the only "#" there can be.
      return url.href.replace(/#.*$/, "");
  }
}

/** `null` when the request does not carry the component, or carries it with characters that could forge a line. */
function componentValue(name: string, head: RequestHead, url: URL): string | null {
  const value = isDerived(name) ? derivedValue(name, head, url) : head.headers.get(name)?.trim();
  return value === undefined || !/^[\t -~]*$/.test(value) ? null : value;
}

/**
 * RFC 9421 section 2.5. `parameters` is the canonical text of the inner list with its parameters, as in
 * `@signature-params`. `null` when the request lacks a covered component.
 */
export function signatureBase(
  head: RequestHead,
  components: readonly string[],
  parameters: string,
): string | null {
  const url = new URL(head.url);
  const lines: string[] = [];
  for (const name of components) {
    const value = componentValue(name, head, url);
    if (value === null) return null;
    lines.push(`${serializeString(name)}: ${value}`);
  }
  lines.push(`"@signature-params": ${parameters}`);
  return lines.join("\n");
}
