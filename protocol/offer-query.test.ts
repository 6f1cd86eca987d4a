import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  holds,
  OfferQuery,
  type OfferSearch,
  OPERATORS,
  offerSearch,
  searchParameters,
} from "./offer-query.ts";

function searchOf(query: Record<string, string>): OfferSearch {
  const outcome = offerSearch(OfferQuery.parse(query));
  if (!outcome.ok) throw new Error(`${outcome.parameter}: ${outcome.detail}`);
  return outcome.search;
}

function issuesOf(query: Record<string, string>) {
  const parsed = OfferQuery.safeParse(query);
  return parsed.success
    ? []
    : parsed.error.issues.map(({ path, message }) => ({ path: path.join("."), message }));
}

describe("MKT-2 a search by query", () => {
  it("leases as many GPUs, cores and gigabytes as the conditions ask for at least", () => {
    const resources = (query: Record<string, string>) => searchOf(query).demand.resources;
    expect(resources({})).toEqual({ gpus: 1, cpu: 0, memory_gb: 0 });
    expect(resources({ "num_gpus[gte]": "4", "num_gpus[neq]": "4" }).gpus).toBe(5);
    expect(resources({ "num_gpus[in]": "8,2" }).gpus).toBe(2);
    expect(resources({ "num_gpus[lte]": "4" }).gpus).toBe(1);
    expect(resources({ "cpu_cores[gt]": "31", "cpu_ram[gte]": "127001" })).toMatchObject({
      cpu: 32,
      memory_gb: 128,
    });
    expect(resources({ gpus: "3", cpu: "4", memory_gb: "5" })).toEqual({ gpus: 3, cpu: 4, memory_gb: 5 });
  });

  it("refuses amounts that no lease can have, by name", () => {
    const refused = offerSearch(OfferQuery.parse({ "num_gpus[gt]": "64" }));
    expect(refused).toMatchObject({ ok: false, parameter: "num_gpus" });
  });

  it("compares money in base units and shares in hundredths of a percent, never as floats", () => {
    expect(searchOf({ "dph_total[lte]": "0.1", "reliability[gte]": "0.9801" }).where).toEqual([
      { field: "reliability", operator: "gte", values: [9_801n] },
      { field: "dph_total", operator: "lte", values: [100_000n] },
    ]);
  });

  it("takes a model as people write it, and sorts by several fields", () => {
    const { demand, order } = searchOf({ gpu_name: "rtx 4090", order: "-reliability,dph_total" });
    expect(demand.gpu_model).toBe("RTX_4090");
    expect(order).toEqual([
      { field: "reliability", descending: true },
      { field: "dph_total", descending: false },
    ]);
  });

  it.each([
    [{ gpu_nam: "RTX_4090" }, "gpu_nam", "fields are gpu_name, num_gpus"],
    [{ "num_gpus[atleast]": "4" }, "num_gpus[atleast]", "operators, as in num_gpus[gte]=4, are eq, neq"],
    [{ "gpu_name[gt]": "A100" }, "gpu_name[gt]", "for texts eq, neq, in, notin"],
    [{ "reliability[gte]": "1.5" }, "reliability[gte]", "0 to 1"],
    [{ "dph_total[lt]": "1e3" }, "dph_total[lt]", "USD per hour"],
    [{ "num_gpus[in]": "1,,2" }, "num_gpus[in]", "commas between them"],
    [{ order: "price" }, "order", "score, gpu_name"],
    [{ limit: "0" }, "limit", ">=1"],
    [{ isolation: "none" }, "isolation", "process < container < vm < tee"],
  ])("refuses %j at its parameter and says what is allowed", (query, path, says) => {
    expect(issuesOf(query)).toMatchObject([{ path, message: expect.stringContaining(says) }]);
  });

  it("holds a condition exactly when arithmetic does", () => {
    const value = fc.bigInt({ min: 0n, max: 5n });
    const means: Record<(typeof OPERATORS)[number], (fact: bigint, values: bigint[]) => boolean> = {
      eq: (fact, [a]) => fact === a,
      neq: (fact, [a]) => fact !== a,
      gt: (fact, [a = 0n]) => fact > a,
      gte: (fact, [a = 0n]) => fact >= a,
      lt: (fact, [a = 0n]) => fact < a,
      lte: (fact, [a = 0n]) => fact <= a,
      in: (fact, values) => values.includes(fact),
      notin: (fact, values) => !values.includes(fact),
    };
    fc.assert(
      fc.property(fc.constantFrom(...OPERATORS), value, value, value, (operator, fact, a, b) => {
        const values = operator === "in" || operator === "notin" ? [a, b] : [a];
        expect(holds({ field: "gpu_ram", operator, values }, fact)).toBe(means[operator](fact, values));
      }),
    );
  });

  it("what an offer does not have meets only negative conditions", () => {
    expect(holds({ field: "min_bid", operator: "lte", values: [5n] }, null)).toBe(false);
    expect(holds({ field: "min_bid", operator: "neq", values: [5n] }, null)).toBe(true);
  });
});

describe("a search as command lines have it", () => {
  it.each([
    [
      "gpu_name=RTX_4090 num_gpus>=4 reliability>0.98",
      { gpu_name: "RTX_4090", "num_gpus[gte]": "4", "reliability[gt]": "0.98" },
    ],
    ['gpu_name == "RTX 4090"', { gpu_name: "RTX 4090" }],
    ["dph_total <= 1.2 gpu_name in [A100, H100]", { "dph_total[lte]": "1.2", "gpu_name[in]": "A100,H100" }],
    ["geolocation not in [us-east] num_gpus!=2", { "geolocation[notin]": "us-east", "num_gpus[neq]": "2" }],
    ["", {}],
  ])("%s", (text, parameters) => {
    expect(searchParameters(text)).toEqual(parameters);
  });

  it.each(["gpu_name", "gpu_name ~ A100", "gpu_name=A100 4", "in [a]"])("refuses %s", (text) => {
    expect(searchParameters(text)).toBeNull();
  });
});
