import { expect, it } from "vitest";
import { fetched, modelState, pipStep } from "./progress";

it.each([
  ["Collecting torch==2.13.0 (from peft-daemon[all])", "looking for torch==2.13.0"],
  ["  Downloading https://host/a/torch-2.13.0-cp312.whl (800 MB)", "fetching torch-2.13.0-cp312.whl"],
  ["Building wheel for peft-daemon (pyproject.toml): started", "building peft-daemon"],
  ["Installing collected packages: a, b, c", "installing what was fetched"],
  ["Requirement already satisfied: numpy", undefined],
  ["", undefined],
])("pip's %j is told as %s", (line, text) => {
  expect(pipStep(line)).toBe(text);
});

it("a model is found, and how much of it is here", () => {
  const row = { id: "m", installed: false, bytes: 491_400_064, staged_bytes: 120_000_000 };
  const model = modelState([{ ...row, id: "other", staged_bytes: 0 }, row], "m") ?? expect.fail("no model");
  expect(model).toEqual({ id: "m", bytes: 491_400_064, stagedBytes: 120_000_000, installed: false });
  expect(fetched(model)).toBe("120 of 491 MB");
  expect(modelState({ error: {} }, "m")).toBeUndefined();
});
