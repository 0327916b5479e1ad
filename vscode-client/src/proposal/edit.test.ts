import { describe, expect, it } from "vitest";
import { applied, type Change, followed, readProposed, type Span } from "./edit";

const range = { start: { line: 1, character: 2 }, end: { line: 1, character: 2 } };
const proposed = { uri: "file:///a.py", version: 3, range, newText: "x", title: "From this comment" };

describe("readProposed", () => {
  it("reads a proposal, and none", () => {
    expect(readProposed(proposed)).toEqual(proposed);
    expect(readProposed(null)).toBeUndefined();
  });

  it.each([{}, "text", { ...proposed, version: "3" }, { ...proposed, range: { start: {}, end: {} } }])(
    "refuses %j",
    (answer) => {
      expect(() => readProposed(answer)).toThrow("different versions");
    },
  );
});

describe("applied", () => {
  it("replaces, inserts and deletes", () => {
    expect(applied("abcdef", { start: 2, end: 4 }, "X")).toBe("abXef");
    expect(applied("abcdef", { start: 6, end: 6 }, "\nX")).toBe("abcdef\nX");
    expect(applied("abcdef", { start: 0, end: 6 }, "")).toBe("");
  });
});

describe("followed", () => {
  const change = (start: number, end: number, inserted: number): Change => ({ start, end, inserted });

  it.each<[string, Change, Span | undefined]>([
    ["before it, longer", change(0, 1, 5), { start: 14, end: 24 }],
    ["before it, shorter", change(2, 8, 0), { start: 4, end: 14 }],
    ["behind it", change(21, 30, 2), { start: 10, end: 20 }],
    ["at its begin", change(8, 10, 1), undefined],
    ["at its end", change(20, 20, 1), undefined],
    ["inside it", change(12, 13, 1), undefined],
    ["around it", change(0, 40, 1), undefined],
  ])("knows a change %s", (_name, edit, expected) => {
    expect(followed({ start: 10, end: 20 }, edit)).toEqual(expected);
  });

  it("keeps the same text in its span, for every change that leaves it alone", () => {
    const text = "0123456789";
    const span = { start: 4, end: 6 };
    for (let start = 0; start <= text.length; start += 1) {
      for (let end = start; end <= text.length; end += 1) {
        const moved = followed(span, change(start, end, 3));
        if (moved) {
          expect(applied(text, { start, end }, "abc").slice(moved.start, moved.end)).toBe("45");
        } else {
          expect(start <= span.end && end >= span.start).toBe(true);
        }
      }
    }
  });
});
