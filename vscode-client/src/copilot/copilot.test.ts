import { expect, it } from "vitest";
import { copilotCompletes } from "./copilot";

it("completes where one of its extensions is, unless its setting turns it off", () => {
  expect(copilotCompletes(true, { "*": true, markdown: false }, true)).toBe(true);
  expect(copilotCompletes(true, undefined, true)).toBe(true);
  expect(copilotCompletes(true, { "*": false, python: true }, true)).toBe(false);
});

it("does not where it is not installed, and where the editor shows no suggestions", () => {
  expect(copilotCompletes(false, { "*": true }, true)).toBe(false);
  expect(copilotCompletes(true, { "*": true }, false)).toBe(false);
});
