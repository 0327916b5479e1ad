import { describe, expect, it } from "vitest";
import { feedbackChoices } from "./choices";

const marked = (setting: unknown): string[] =>
  feedbackChoices(setting)
    .filter(({ label }) => label.startsWith("$(check)"))
    .map(({ value }) => value);

describe("feedbackChoices", () => {
  it("marks the one that holds", () => {
    expect(marked("text")).toEqual(["text"]);
    expect(marked("counts")).toEqual(["counts"]);
    expect(marked(false)).toEqual(["off"]);
  });

  it("takes what an earlier version had for no consent", () => {
    expect(marked(true)).toEqual([]);
    expect(marked(null)).toEqual([]);
  });

  it("says how much code is kept before it is", () => {
    expect(feedbackChoices(null).find(({ value }) => value === "text")?.detail).toContain("8,000 characters of code");
  });
});
