import { expect, it } from "vitest";
import { planText, readPlan } from "./plan";

const document = {
  examples: 800,
  validation_examples: 64,
  tokens: 250_000,
  dropped: {},
  steps: 500,
  evaluations: 5,
  peak_memory_bytes: 5.3e9,
  available_bytes: 1.1e10,
  seconds: 3600,
  fits: true,
};

it("a plan is told with its time, steps and memory", () => {
  const plan = readPlan(document) ?? expect.fail("no plan");
  expect(planText(plan).split("\n")).toEqual(
    expect.arrayContaining([
      "Examples: 800 to learn, in 500 steps",
      "Time: about 1 h 0 min. Then the adapter is judged on your newest code.",
      "Memory: 5.3 GB at the peak, 11.0 GB available",
    ]),
  );
});

it.each([null, {}, { ...document, steps: undefined }, { ...document, seconds: "1" }, { error: {} }])(
  "%j is no plan",
  (other) => {
    expect(readPlan(other)).toBeUndefined();
  },
);
