/** Whose doing a refusal is. */
export type Fault = "tenant" | "provider" | "platform" | "chain";

/** What a code of the table says; see errors.ts. */
export interface ErrorEntry {
  readonly status: number;
  readonly title: string;
  readonly hint: string;
  readonly fault: Fault;
  readonly retryable: boolean;
}

/** The caller has to change something first. */
export const tenant = (status: number, title: string, hint: string): ErrorEntry => ({
  status,
  title,
  hint,
  fault: "tenant",
  retryable: false,
});
/** The same again may go well later. */
export const later = (status: number, fault: Fault, title: string, hint: string): ErrorEntry => ({
  status,
  title,
  hint,
  fault,
  retryable: true,
});
