import { describe, expect, it } from "vitest";
import { isSame, readMore, type Where } from "./more";

const params = { uri: "file:///a.py", version: 3, position: { line: 1, character: 4 } };
const where: Where = { uri: "file:///a.py", version: 3, line: 1, character: 4 };

describe("readMore", () => {
  it("reads the server's words", () => {
    expect(readMore(params)).toEqual(where);
  });

  it.each([
    undefined,
    null,
    [],
    {},
    { ...params, uri: 1 },
    { ...params, version: null },
    { ...params, position: null },
    { ...params, position: { line: 1 } },
    { ...params, position: { line: "1", character: 4 } },
  ])("has no use for %j", (nonsense) => {
    expect(readMore(nonsense)).toBeUndefined();
  });
});

describe("isSame", () => {
  it("wants the same place of the same text", () => {
    expect(isSame(where, { ...where })).toBe(true);
  });

  it.each([{ uri: "file:///b.py" }, { version: 4 }, { line: 2 }, { character: 5 }])("sees that %j differs", (other) => {
    expect(isSame(where, { ...where, ...other })).toBe(false);
  });
});
