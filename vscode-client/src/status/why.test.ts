import { expect, it } from "vitest";
import { whyText } from "./why";

it("says what the status bar says, then the server's words, and where more are", () => {
  const answer = {
    text: "last suggestion  none was noted\nlast silence     14:02:11  a.py:1:1  nothing",
    decisions: [],
  };
  const text = whyText("peft-daemon: idle, snoozed until 14:10", answer, "a.py");
  expect(text.split("\n").slice(0, 4)).toEqual([
    "peft-daemon: idle, snoozed until 14:10",
    "",
    "in a.py",
    "last suggestion  none was noted",
  ]);
  expect(text).toContain("peft-daemon why --last 20");
  expect(whyText("peft-daemon: off", undefined, undefined)).toContain("in all documents");
});
