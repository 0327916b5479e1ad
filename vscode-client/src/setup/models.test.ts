import { expect, it } from "vitest";
import { modelPicks, readPlan, size } from "./models";

const row = {
  id: "small",
  bytes: 491_400_064,
  memory_bytes: 820_540_070,
  licence: "Apache-2.0",
  fill_score: null,
  installed: true,
  in_use: true,
  recommended: false,
  first_suggestion_s: 1.54,
  writing: 41.7,
};
const answer = {
  machine: { processor: "AMD EPYC", threads: 2, memory_bytes: 25_200_000_000, gpu: "" },
  models: [
    row,
    { ...row, id: "large", bytes: 1_646_573_056, fill_score: 0.7, installed: false, in_use: false, recommended: true },
  ],
  reason: "the largest that is quick",
};
const plan = readPlan(answer) ?? expect.fail("no plan");

it("the recommended model comes first, with what it costs and what to expect of it", () => {
  const [first, second] = modelPicks(plan);
  expect(first?.model.id).toBe("large");
  expect(first?.description).toBe("recommended, 1.6 GB to fetch");
  expect(first?.detail).toBe(
    "first suggestion after 1.5 s · writes 42 tokens/s · 821 MB of memory · fills 70 % of holes (published) · Apache-2.0",
  );
  expect(second?.label).toBe("$(package) small");
  expect(second?.description).toBe("in use");
});

it("the machine is told in a line", () => {
  expect(plan.machine).toBe("AMD EPYC, 2 threads, 25.2 GB of memory, no graphics card");
  expect(readPlan({ ...answer, machine: { ...answer.machine, gpu: "NVIDIA L4" } })?.machine).toMatch(/NVIDIA L4$/);
});

it("a machine that could not be measured has models without speeds", () => {
  const unmeasured = readPlan({ ...answer, models: [{ ...row, first_suggestion_s: null, writing: null }] });
  expect(modelPicks(unmeasured ?? expect.fail("no plan"))[0]?.detail).toBe("821 MB of memory · Apache-2.0");
});

it("another answer is no plan", () => {
  expect(readPlan({ error: { message: "no such option" } })).toBeUndefined();
  expect(readPlan([])).toBeUndefined();
});

it.each([
  [491_400_064, "491 MB"],
  [8_098_525_600, "8.1 GB"],
])("%i bytes are %s", (bytes, text) => {
  expect(size(bytes)).toBe(text);
});
