import { expect, it } from "vitest";
import { createEventParser } from "./event-stream.ts";

it.each([
  ["one event", "id: 1\nevent: status\ndata: {}\n\n", [{ id: "1", type: "status", data: "{}" }]],
  ["the default type", "data: x\n\n", [{ id: null, type: "message", data: "x" }]],
  ["data over lines", "data: a\ndata: b\n\n", [{ id: null, type: "message", data: "a\nb" }]],
  [
    "CRLF and CR",
    "data: a\r\n\r\ndata: b\r\rdata: c\n\n",
    ["a", "b", "c"].map((data) => ({ id: null, type: "message", data })),
  ],
  ["comments and empty events", ": ping\n\nevent: status\n\n", []],
  [
    "the last id carried on",
    "id: 4\ndata: a\n\ndata: b\n\n",
    [
      { id: "4", type: "message", data: "a" },
      { id: "4", type: "message", data: "b" },
    ],
  ],
  ["no more than one leading space", "data:  a\ndata:b\n\n", [{ id: null, type: "message", data: " a\nb" }]],
  ["nothing of an event that is cut off", "data: a\n\ndata: b\n", [{ id: null, type: "message", data: "a" }]],
])("reads %s, whole or byte by byte", (_, text, events) => {
  expect(createEventParser()(text)).toEqual(events);
  const parse = createEventParser();
  expect([...text].flatMap((character) => parse(character))).toEqual(events);
});

it("gives up on an event that does not end", () => {
  const parse = createEventParser();
  expect(() => {
    for (;;) parse(`data: ${"x".repeat(100_000)}\n`);
  }).toThrow(RangeError);
});
