import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { remedies } from "./remedies";

const labels = (message: string): string[] => remedies(message).map(({ label }) => label);

it.each([
  ["model 'm' is not installed. Type `peft-daemon models pull m` (491 MB)", ["Fetch the Model"]],
  ["peft-daemon is not set up. Run 'peft-daemon: Set Up'", ["Set Up"]],
  ["it failed. `peft-daemon doctor` says why, then type `peft-daemon start`", ["Check the Installation", "Restart"]],
  ["Correct the setting 'peft-daemon.command', or run 'peft-daemon: Set Up'", ["Open the Setting", "Set Up"]],
  ["the server serves 2 models. Set `upstream_model` to one of them", ["Change the Setting"]],
  ["it does not fit. Raise `memory_limit_mb`, then type `peft-daemon stop`", ["Change the Setting", "Restart"]],
  ["the model had no code for this", []],
])("%j has the buttons %j", (message, wanted) => {
  expect(labels(message)).toEqual(wanted);
});

it("two commands that do the same are one button", () => {
  expect(labels("`peft-daemon models pull m`, or peft-daemon: Set Up")).toEqual(["Fetch the Model"]);
});

it("the daemon's setting that is told is the one that is changed", () => {
  expect(remedies("Set `engine` to auto to stop asking")).toMatchObject([
    { command: "peftDaemon.daemonSettings", args: ["engine"] },
  ]);
});

it("every message of the extension that tells a command or a setting has a button for it", () => {
  const bundle = JSON.parse(readFileSync(join(__dirname, "../l10n/bundle.l10n.json"), "utf8")) as object;
  const telling = Object.keys(bundle).filter((text) =>
    /'peft-daemon: |setting '|`peft-daemon (?!why|feedback)/.test(text),
  );
  expect(telling.length).toBeGreaterThan(8);
  expect(telling.filter((text) => remedies(text).length === 0)).toEqual([]);
});

it("the setting that is told is the one that opens", () => {
  expect(remedies("see the setting 'python.defaultInterpreterPath'")).toMatchObject([
    { args: ["python.defaultInterpreterPath"] },
  ]);
});
