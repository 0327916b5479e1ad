import { expect, it } from "vitest";
import { adapterName } from "./names";

/** The adapter registry's own rule. */
const RULE = /^[a-z0-9][a-z0-9._-]{0,63}$/;

it.each([
  ["peft-daemon", "peft-daemon"],
  ["My Project!", "my-project"],
  [".dotfiles", "dotfiles"],
  ["日本", "this-code"],
  ["base", "base-code"],
  ["cafe", "cafe-code"],
  ["x".repeat(200), "x".repeat(50)],
])("the adapter of %j is called %s", (folder, name) => {
  expect(adapterName(folder, new Set())).toBe(name);
  expect(name).toMatch(RULE);
});

it("a name that is taken gets a number", () => {
  expect(adapterName("app", new Set(["app", "app-2"]))).toBe("app-3");
});
