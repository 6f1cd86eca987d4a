import { isComponent } from "./signature-base.ts";
import {
  type BareItem,
  type InnerList,
  parseByteSequences,
  parseInnerLists,
  serializeBytes,
  serializeInnerList,
} from "./structured-fields.ts";

/** The `Signature-Input` and `Signature` fields (RFC 9421 section 4), with exactly one signature in them. */

/** Lengths in characters and counts, checked before anything is parsed or hashed. 8 KiB of ERC-6492 signature fit. */
export const MAX_SIGNATURE_INPUT = 2_048;
export const MAX_SIGNATURE = 12_288;
const MAX_COMPONENTS = 16;
const MAX_LABEL = 64;

export type SignatureParameters = {
  /** Seconds since the epoch. */
  readonly created?: number;
  readonly expires?: number;
  readonly nonce?: string;
  readonly keyid?: string;
  readonly alg?: string;
  readonly tag?: string;
};

export type ParsedSignature = {
  readonly label: string;
  readonly components: readonly string[];
  readonly parameters: SignatureParameters;
  /** Canonical text of components and parameters, in the order received: the last line of the signature base. */
  readonly input: string;
  readonly signature: Uint8Array;
};

export type SignatureFieldsRefusal = "signature_missing" | "signature_malformed";

const NUMBERS = ["created", "expires"] as const;
const STRINGS = ["nonce", "keyid", "alg", "tag"] as const;

function isIn<Name extends string>(names: readonly Name[], name: string): name is Name {
  return names.some((known) => known === name);
}

/** `null` on an unknown parameter or a wrong type: what we do not understand we do not vouch for. */
function parametersOf(list: InnerList): SignatureParameters | null {
  const parameters: { -readonly [Name in keyof SignatureParameters]: SignatureParameters[Name] } = {};
  for (const [name, value] of list.parameters) {
    if (isIn(NUMBERS, name) && typeof value === "number" && value >= 0) parameters[name] = value;
    else if (isIn(STRINGS, name) && typeof value === "string") parameters[name] = value;
    else return null;
  }
  return parameters;
}

/** `null` on component parameters (;sf, ;key, ;bs, ;req, ;tr), unknown derived components and duplicates. */
function componentsOf(list: InnerList): string[] | null {
  if (list.items.length === 0 || list.items.length > MAX_COMPONENTS) return null;
  const names = list.items.map((item) => item.value);
  const plain = list.items.every((item) => item.parameters.size === 0 && isComponent(item.value));
  return plain && new Set(names).size === names.length ? names : null;
}

/** The canonical `("@method" ...);created=...` of a signature to be made, parameters in the order given. */
export function serializeSignatureInput(
  components: readonly string[],
  parameters: SignatureParameters,
): string {
  const entries: [string, BareItem | undefined][] = Object.entries(parameters);
  const present = entries.flatMap(([name, value]): [string, BareItem][] =>
    value === undefined ? [] : [[name, value]],
  );
  return serializeInnerList(components, new Map(present));
}

/** Both fields' values for one signature. */
export function writeSignature(
  label: string,
  input: string,
  signature: Uint8Array,
): { signatureInput: string; signature: string } {
  return { signatureInput: `${label}=${input}`, signature: `${label}=${serializeBytes(signature)}` };
}

/**
 * Refuses more than one signature, labels that differ between the fields, duplicates of any kind, unknown
 * components and parameters, and what is too long. Proves nothing yet: the signature is not checked here.
 */
export function parseSignature(headers: {
  get(name: string): string | null;
}): { ok: true; value: ParsedSignature } | { ok: false; code: SignatureFieldsRefusal } {
  const inputField = headers.get("signature-input");
  const signatureField = headers.get("signature");
  if (inputField === null || signatureField === null) return { ok: false, code: "signature_missing" };

  const malformed = { ok: false, code: "signature_malformed" } as const;
  if (inputField.length > MAX_SIGNATURE_INPUT || signatureField.length > MAX_SIGNATURE) return malformed;
  const inputs = parseInnerLists(inputField);
  const signatures = parseByteSequences(signatureField);
  if (inputs?.size !== 1 || signatures?.size !== 1) return malformed;

  for (const [label, list] of inputs) {
    const signature = signatures.get(label);
    const components = componentsOf(list);
    const parameters = parametersOf(list);
    if (label.length > MAX_LABEL || signature === undefined || components === null || parameters === null) {
      return malformed;
    }
    const input = serializeInnerList(components, list.parameters);
    return { ok: true, value: { label, components, parameters, input, signature } };
  }
  return malformed;
}
