import { expect, it } from "vitest";
import { missingExtra, requirement } from "./bundle";
import { checkArguments, installArguments, installFailure, isUnfit, replaceArguments, venvArguments } from "./pip";

const bundle = {
  wheel: "/ext dir/peft_daemon-0.1.0-py3-none-any.whl",
  constraints: "/ext dir/constraints.txt",
  digest: "",
};
const FILE = "file:///ext%20dir/peft_daemon-0.1.0-py3-none-any.whl";
const PIP = "-I -m pip install --no-input --disable-pip-version-check";

it("installs the extension's own wheel, in the tested versions, and nothing of that name from an index", () => {
  expect(installArguments(bundle, [], ["--proxy", "p"], true).join(" ")).toBe(
    `${PIP} --constraint /ext dir/constraints.txt --proxy p peft-daemon @ ${FILE}`,
  );
  expect(installArguments(bundle, ["tune", "eval"], [], false).join(" ")).toBe(
    `${PIP} peft-daemon[tune,eval] @ ${FILE}`,
  );
});

it("asks what is missing, and replaces the package alone, without an index", () => {
  expect(checkArguments(bundle, ["tune"]).join(" ")).toBe(
    `${PIP} --quiet --no-index --dry-run peft-daemon[tune] @ ${FILE}`,
  );
  expect(replaceArguments(bundle).join(" ")).toBe(
    `${PIP} --no-index --no-deps --force-reinstall peft-daemon @ ${FILE}`,
  );
  expect(requirement(bundle, [])).toBe(`peft-daemon @ ${FILE}`);
});

it("an environment is made by an isolated Python", () => {
  expect(venvArguments("/env", false)).toEqual(["-I", "-m", "venv", "/env"]);
  expect(venvArguments("/env", true)).toEqual(["-I", "-m", "venv", "--clear", "/env"]);
});

it.each([
  [
    "ProxyError('Cannot connect to proxy.')\nERROR: No matching distribution found for numpy",
    "cannot be reached",
    false,
  ],
  ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full", false],
  ["The virtual environment was not created successfully because ensurepip is not available.", "python3-venv", false],
  ["/usr/bin/python3: No module named venv", "python3-venv", false],
  ["ERROR: No matching distribution found for xllamacpp>=2026.10; extra", "no 'xllamacpp>=2026.10'", true],
  ["ERROR: ResolutionImpossible: for help visit …", "ResolutionImpossible", true],
  ["warning\nERROR: something odd\n[notice] a new pip", "could not be installed: something odd. Look at", false],
  ["", "it said nothing", false],
])("pip's %j becomes a sentence", (complaints, sentence, unfit) => {
  expect(installFailure(complaints).message).toContain(sentence);
  expect(isUnfit(complaints)).toBe(unfit);
});

it.each([
  ["tuning needs torch. Install the extra: /env/bin/python -m pip install 'peft-daemon[tune] @ file:///x.whl'", "tune"],
  ["reading reports needs jinja2. Install the extra: pip install 'peft-daemon[eval]'", "eval"],
  ["--ray needs ray. Install the extra: pip install 'peft-daemon[ray]'", undefined],
  ["no adapter '[tune]'", undefined],
])("%j lacks the extra %s", (message, extra) => {
  expect(missingExtra(message)).toBe(extra);
});
