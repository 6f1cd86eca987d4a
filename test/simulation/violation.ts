/** Something that must never be, by the name of its rule. */
export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, detail: string) {
    super(`${rule}: ${detail}`);
    this.name = "Violation";
    this.rule = rule;
  }
}

export function hold(condition: boolean, rule: string, detail: () => string): void {
  if (!condition) throw new Violation(rule, detail());
}
