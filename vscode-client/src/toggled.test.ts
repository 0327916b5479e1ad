import { expect, it } from "vitest";
import { toggled } from "./toggled";

it("a language comes in, sorted, and goes out again", () => {
  expect(toggled(["python"], "markdown")).toEqual(["markdown", "python"]);
  expect(toggled(["markdown", "python"], "markdown")).toEqual(["python"]);
});
