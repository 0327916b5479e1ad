import { expect, it } from "vitest";
import { copilotCompletes } from "./copilot";

const none = (): boolean => false;
const chat = (id: string): boolean => id === "GitHub.copilot-chat";

it("is on where one of its extensions is, unless its setting turns it off", () => {
  expect(copilotCompletes(chat, { "*": true, markdown: false }, true)).toBe(true);
  expect(copilotCompletes(chat, undefined, true)).toBe(true);
  expect(copilotCompletes(chat, { "*": false, python: true }, true)).toBe(false);
});

it("is off where it is not installed, and where the editor shows no suggestions", () => {
  expect(copilotCompletes(none, { "*": true }, true)).toBe(false);
  expect(copilotCompletes(chat, { "*": true }, false)).toBe(false);
});
