import { expect, it } from "vitest";
import { remedies } from "./remedies";

const labels = (message: string): string[] => remedies(message).map(({ label }) => label);

it.each([
  ["model 'm' is not installed. Type `peft-daemon models pull m` (491 MB)", ["Fetch the Model"]],
  ["peft-daemon is not set up. Run 'peft-daemon: Set Up'", ["Set Up"]],
  ["it failed. `peft-daemon doctor` says why, then type `peft-daemon start`", ["Check the Installation", "Restart"]],
  ["Correct the setting 'peft-daemon.command', or run 'peft-daemon: Set Up'", ["Open the Setting", "Set Up"]],
  ["the model had no code for this", []],
])("%j has the buttons %j", (message, wanted) => {
  expect(labels(message)).toEqual(wanted);
});

it("two commands that do the same are one button", () => {
  expect(labels("`peft-daemon models pull m`, or peft-daemon: Set Up")).toEqual(["Fetch the Model"]);
});

it("the setting that is told is the one that opens", () => {
  expect(remedies("see the setting 'python.defaultInterpreterPath'")).toMatchObject([
    { args: ["python.defaultInterpreterPath"] },
  ]);
});
