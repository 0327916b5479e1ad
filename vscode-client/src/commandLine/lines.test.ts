import { expect, it } from "vitest";
import { Lines } from "./lines";

it.each([1, 2, 3, 5, 100])("lines come out whole from pieces of %i bytes", (size) => {
  const bytes = new TextEncoder().encode("eins\nzwei → drei\n\n𝄞\nunfinished");
  const lines = new Lines();
  const found: string[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    found.push(...lines.add(bytes.subarray(at, at + size)));
  }
  expect(found).toEqual(["eins", "zwei → drei", "", "𝄞"]);
});
