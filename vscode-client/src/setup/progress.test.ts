import { expect, it } from "vitest";
import { chosenModel, fetched, pipStep } from "./progress";

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

it("the chosen model is found, and how much of it is here", () => {
  const row = { id: "m", chosen: true, installed: false, bytes: 491_400_064, staged_bytes: 120_000_000 };
  const model = chosenModel([{ ...row, id: "other", chosen: false }, row]) ?? expect.fail("no model");
  expect(model).toEqual({ id: "m", bytes: 491_400_064, stagedBytes: 120_000_000, installed: false });
  expect(fetched(model)).toBe("120 of 491 MB");
  expect(chosenModel({ error: {} })).toBeUndefined();
});
