import type { RelayerHealth } from "@gpux/protocol/intent";

/** How one key stands, and what the relayer as a whole says of itself from that. Pure. */
export interface KeyReport {
  /** Wei as last seen; null before the first look. */
  readonly balance: string | null;
  readonly lowBalance: string;
  /** False: it is not in the secret any more, and only followed. */
  readonly signs: boolean;
  /** By state. */
  readonly intents: readonly { readonly state: string; readonly count: number }[];
  /** Nonces that have not landed, and those of them that were outbid more than once. */
  readonly open: number;
  readonly stuck: readonly number[];
  /** Prometheus series with their labels. */
  readonly counters: readonly { readonly name: string; readonly value: string }[];
  /** Wei, of all that landed. */
  readonly spent: string;
  readonly endpoints: readonly { readonly faults: number; readonly resting: boolean }[];
}

export type Reports = readonly (readonly [address: string, report: KeyReport])[];

const isLow = (report: KeyReport) =>
  report.balance !== null && BigInt(report.balance) < BigInt(report.lowBalance);

export function healthOf(reports: Reports): RelayerHealth {
  const reasons = reports.flatMap(([address, report]) => [
    ...(report.signs && isLow(report) ? [`low_balance:${address}`] : []),
    ...report.stuck.map((nonce) => `stuck_nonce:${address}:${nonce}`),
    ...report.endpoints.flatMap(({ resting }, index) => (resting ? [`endpoint_resting:${index}`] : [])),
  ]);
  const signing = reports.filter(([, report]) => report.signs);
  const penniless = signing.every(([, report]) => report.balance === "0");
  const cut = signing.every(([, report]) => report.endpoints.every(({ resting }) => resting));
  const unique = [...new Set(reasons)];
  if (penniless || cut) return { status: "down", reasons: unique };
  return { status: unique.length > 0 ? "degraded" : "ok", reasons: unique };
}

const gauges: readonly (readonly [
  name: string,
  help: string,
  of: (report: KeyReport) => [string, string][],
])[] = [
  [
    "gpux_relay_balance_wei",
    "Gas money of a key.",
    ({ balance }) => (balance === null ? [] : [["", balance]]),
  ],
  [
    "gpux_relay_low_balance",
    "1 while a key is below its alarm.",
    (report) => [["", isLow(report) ? "1" : "0"]],
  ],
  ["gpux_relay_open_nonces", "Transactions that have not landed.", ({ open }) => [["", String(open)]]],
  ["gpux_relay_stuck_nonces", "Of them, outbid more than once.", ({ stuck }) => [["", String(stuck.length)]]],
  [
    "gpux_relay_intents",
    "Intents by state.",
    ({ intents }) => intents.map(({ state, count }) => [`,state="${state}"`, String(count)]),
  ],
  [
    "gpux_relay_node_faults",
    "Faults of an endpoint since the key's object woke.",
    ({ endpoints }) => endpoints.map(({ faults }, n) => [`,endpoint="${n}"`, String(faults)]),
  ],
];

/** Prometheus text exposition format, version 0.0.4. */
export function metricsOf(reports: Reports): string {
  const lines: string[] = [];
  for (const [name, help, of] of gauges) {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} gauge`);
    for (const [address, report] of reports)
      for (const [labels, value] of of(report)) lines.push(`${name}{key="${address}"${labels}} ${value}`);
  }
  lines.push("# HELP gpux_relay_spent_wei_total Gas and L1 fees of all that landed.");
  lines.push("# TYPE gpux_relay_spent_wei_total counter");
  for (const [address, { spent }] of reports)
    lines.push(`gpux_relay_spent_wei_total{key="${address}"} ${spent}`);
  const series = reports.flatMap(([address, { counters }]) =>
    counters.map(({ name, value }) => ({ address, name, value })),
  );
  const families = new Set(series.map(({ name }) => name.split("{")[0] ?? name));
  for (const family of [...families].toSorted()) {
    lines.push(`# TYPE ${family} counter`);
    for (const { address, name, value } of series) {
      if (name.split("{")[0] !== family) continue;
      const labels = name.includes("{") ? `,${name.slice(name.indexOf("{") + 1, -1)}` : "";
      lines.push(`${family}{key="${address}"${labels}} ${value}`);
    }
  }
  return `${lines.join("\n")}\n`;
}
