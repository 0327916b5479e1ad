import { describe, expect, it } from "vitest";
import { Moves, type Seen } from "./moves";

const at = (character: number, version = 1, uri = "file:///a.py"): Seen => ({
  uri,
  version,
  cursor: { line: 3, character },
});

describe("Moves", () => {
  it("takes the first sight of a document for a move", () => {
    const moves = new Moves();
    expect(moves.isMove(at(1))).toBe(true);
    expect(moves.isMove(at(1, 1, "file:///b.py"))).toBe(true);
    expect(moves.isMove(at(1))).toBe(true);
  });

  it("tells arrow keys from typing", () => {
    const moves = new Moves();
    moves.isMove(at(1));
    expect(moves.isMove(at(2))).toBe(true);
    expect(moves.isMove(at(3, 2))).toBe(false);
    expect(moves.isMove(at(4, 2))).toBe(true);
  });

  it("says nothing twice, unless the server is a new one", () => {
    const moves = new Moves();
    moves.isMove(at(1));
    expect(moves.isMove(at(1))).toBe(false);
    moves.forget();
    expect(moves.isMove(at(1))).toBe(true);
  });
});
