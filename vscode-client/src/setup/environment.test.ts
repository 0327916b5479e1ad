import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { thisMachine } from "../commandLine/machine";
import type { Ended, Work } from "../commandLine/running";
import { readBundle } from "./bundle";
import { PrivateEnvironment } from "./environment";

const PYTHON = { program: "/usr/bin/python3", first: [], version: "3.12.1" };
const done: Ended = { code: 0, stdout: "", stderr: "" };

let root: string;
let wheels: string;
/** The steps so far: `venv`, `check`, `replace`, or pip's requirement with its options. */
let steps: string[];
/** Steps that fail, and with what complaint. */
let failing: Map<RegExp, string>;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "pd-"));
  wheels = join(root, "wheel");
  await mkdir(wheels);
  await bring("the first build");
  steps = [];
  failing = new Map();
});

afterEach(() => rm(root, { recursive: true }));

/** The extension comes with this package. */
async function bring(content: string): Promise<void> {
  await writeFile(join(wheels, "peft_daemon-0.1.0-py3-none-any.whl"), content);
  await writeFile(join(wheels, "constraints.txt"), "numpy==2.4.6\n");
}

async function machine({ args, program, cwd, onError }: Work): Promise<Ended> {
  expect(cwd).toBe(join(root, "storage"));
  const words = args.join(" ");
  const name =
    /--version$|-m venv(?: --clear)?|--dry-run|--force-reinstall|--constraint/.exec(words)?.[0] ?? "unconstrained";
  const extras = /peft-daemon(\[[a-z,]+\])? @/.exec(words)?.[1] ?? "";
  const step = { "--dry-run": "check", "--force-reinstall": "replace", "--constraint": "install" }[name] ?? name;
  steps.push(step + extras);
  const complaint = [...failing].find(([pattern]) => pattern.test(step))?.[1];
  if (complaint !== undefined) {
    onError?.(complaint);
    return { code: 1, stdout: "", stderr: complaint };
  }
  const bin = step.startsWith("-m venv") ? join(args.at(-1) ?? "", "bin") : dirname(program);
  await mkdir(bin, { recursive: true });
  await writeFile(join(bin, "python"), "", { mode: 0o755 });
  if (step === "install" || step === "unconstrained") {
    await writeFile(join(bin, "peft-daemon"), "", { mode: 0o755 });
  }
  return done;
}

const environment = (): PrivateEnvironment =>
  new PrivateEnvironment(
    join(root, "storage", "env"),
    thisMachine,
    () => readBundle(wheels),
    () => ["--find-links", "x"],
    machine,
  );

it("is absent, then current, then outdated when the extension brings another build of the same version", async () => {
  expect(await environment().state()).toBe("absent");
  await environment().install(PYTHON, undefined, {});
  expect(steps).toEqual(["-m venv", "install"]);
  expect(await environment().state()).toBe("current");
  await bring("the second build");
  expect(await environment().state()).toBe("outdated");
  steps = [];
  await environment().install(PYTHON, undefined, {});
  expect(steps.slice(1)).toEqual(["-m venv", "install", "replace"]);
  expect(await environment().state()).toBe("current");
});

it("an update that needs no new package uses no index, and keeps the extras", async () => {
  await environment().install(PYTHON, "tune", {});
  await bring("the second build");
  steps = [];
  expect(await environment().update({})).toBe(true);
  expect(steps).toEqual(["check[tune]", "replace"]);
  expect(await environment().isOutdated()).toBe(false);
});

it("an update that needs new packages changes nothing by itself", async () => {
  await environment().install(PYTHON, undefined, {});
  await bring("the second build");
  failing.set(/check/, "ERROR: No matching distribution found for new-package");
  steps = [];
  expect(await environment().update({})).toBe(false);
  expect(steps).toEqual(["check"]);
  expect(await environment().isOutdated()).toBe(true);
});

it("what was interrupted is done again", async () => {
  failing.set(/install/, "ERROR: killed");
  await expect(environment().install(PYTHON, undefined, {})).rejects.toThrow("killed");
  expect(await environment().state()).toBe("absent");
  failing.clear();
  await environment().install(PYTHON, undefined, {});
  expect(await environment().state()).toBe("current");
});

it("an environment whose Python is gone is made from the beginning, with the extras it had", async () => {
  await environment().install(PYTHON, "tune", {});
  failing.set(/--version/, "no such file");
  expect(await environment().state()).toBe("broken");
  steps = [];
  await environment().install(PYTHON, undefined, {});
  expect(steps).toEqual(["--version", "-m venv --clear", "install[tune]"]);
});

it("the tested versions give way where they do not fit", async () => {
  failing.set(/^install/, "ERROR: No matching distribution found for numpy==2.4.6");
  await environment().install(PYTHON, undefined, {});
  expect(steps).toEqual(["-m venv", "install", "unconstrained"]);
});

it("without a network there is no second attempt, and the sentence says what to do", async () => {
  failing.set(
    /^install/,
    "WARNING: Retrying … NewConnectionError('Name or service not known')\nERROR: No matching distribution found for numpy",
  );
  await expect(environment().install(PYTHON, undefined, {})).rejects.toThrow("Connect to the network");
  expect(steps).toEqual(["-m venv", "install"]);
});

it("one that was cancelled says only that", async () => {
  const work = environment().install(PYTHON, undefined, { signal: AbortSignal.abort() });
  await expect(work).rejects.toMatchObject({ code: "cancelled" });
});

it("the lock of a window that is gone is broken", async () => {
  await mkdir(join(root, "storage"));
  await writeFile(join(root, "storage", "env.lock"), "999999999 1");
  await environment().install(PYTHON, undefined, {});
  expect(await environment().state()).toBe("current");
});

it("two windows change it one after the other", async () => {
  await Promise.all([environment().install(PYTHON, undefined, {}), environment().install(PYTHON, undefined, {})]);
  expect(steps).toEqual(["-m venv", "install", "--version", "-m venv", "install"]);
  await expect(readFile(join(root, "storage", "env.lock"))).rejects.toThrow("ENOENT");
});

it("an extension that came without the package says so", async () => {
  await expect(readBundle(join(root, "nowhere"))).rejects.toThrow("came without peft-daemon");
});
