import { expect, test } from "vitest";
import { routes } from "./app.ts";
import { openApiDocument } from "./openapi.ts";

const document = openApiDocument(routes, "https://edge.test");
const text = JSON.stringify(document);

function at(pointer: string): unknown {
  let value: unknown = document;
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    value = typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
  }
  return value;
}

test("every operation is described", () => {
  for (const { route } of routes)
    expect(at(`/paths/${route.path.replaceAll("/", "~1")}/${route.method}`)).toBeDefined();
});

test("every reference leads to a schema of the document", () => {
  const references = Array.from(text.matchAll(/"\$ref":"([^"]+)"/g), ([, reference = ""]) => reference);
  expect(references.length).toBeGreaterThan(10);
  for (const reference of references) {
    expect(reference).toMatch(/^#\//);
    expect(at(reference.slice(1))).toBeDefined();
  }
});

test("amounts are described as the strings that travel", () => {
  const maxPrice = at(
    "/paths/~1v1~1jobs/post/requestBody/content/application~1json/schema/properties/max_price",
  );
  expect(maxPrice).toEqual({ type: "string", pattern: "^(0|[1-9][0-9]{0,26})$" });
  expect(at("/components/schemas/Quote/properties/amount")).toMatchObject({ type: "string" });
  expect(at("/components/schemas/Quote/properties/terms/properties/ratePerHour")).toMatchObject({
    type: "string",
  });
});

test("each path parameter of a route is declared", () => {
  for (const { route } of routes) {
    const names = Array.from(route.path.matchAll(/\{(\w+)\}/g), ([, name]) => name);
    const declared = at(`/paths/${route.path.replaceAll("/", "~1")}/${route.method}/parameters`);
    const inPath = Array.isArray(declared) ? declared.filter((each) => each.in === "path") : [];
    expect(inPath.map((each) => each.name)).toEqual(names);
  }
});
