import { describe, expect, it } from "vitest";
import type { Machine } from "../commandLine/commandLine";
import { findPython, isNewEnough, readVersion } from "./python";

describe("readVersion", () => {
  it.each([
    ["3.12.4", "3.12.4"],
    ["Python 3.11.2\n", "3.11.2"],
    ["3.13.0rc1", "3.13.0"],
    ["3.14", "3.14"],
    ["", undefined],
    [undefined, undefined],
    ["pyenv: python3: command not found", undefined],
  ])("%j is %s", (line, version) => {
    expect(readVersion(line)).toBe(version);
  });
});

it.each([
  ["3.11", true],
  ["3.11.0", true],
  ["3.9.18", false],
  ["3.10.14", false],
  ["2.7.18", false],
  ["4.0", true],
])("%s is new enough: %s", (version, expected) => {
  expect(isNewEnough(version)).toBe(expected);
});

describe("findPython", () => {
  const versions: Record<string, string> = {
    "/usr/bin/python3": "3.9.2",
    "/usr/bin/python3.12": "3.12.1",
    "/own/python": "3.11.9",
  };
  const machine: Machine = {
    platform: "linux",
    home: "/home/me",
    path: "/usr/bin",
    isProgram: (path) => Promise.resolve(path in versions || path === "C:\\Windows\\py.exe"),
    hasModule: () => Promise.resolve(false),
  };
  const ask = (program: string): Promise<string | undefined> =>
    Promise.resolve(program in versions ? `${versions[program]} complete\n` : undefined);

  it("passes over one that is too old", async () => {
    const found = await findPython(machine, undefined, ask);
    expect(found.python).toEqual({ program: "/usr/bin/python3.12", first: [], version: "3.12.1" });
  });

  it("takes the user's own first, if it answers", async () => {
    expect((await findPython(machine, "/own/python", ask)).python?.program).toBe("/own/python");
    expect((await findPython(machine, "/gone/python", ask)).python?.program).toBe("/usr/bin/python3.12");
  });

  it("asks the launcher on Windows for version 3", async () => {
    const windows: Machine = { ...machine, platform: "win32", path: "C:\\Windows" };
    const found = await findPython(windows, undefined, (_program, first) =>
      Promise.resolve(first[0] === "-3" ? "3.13.0 complete" : undefined),
    );
    expect(found.python).toEqual({ program: "C:\\Windows\\py.exe", first: ["-3"], version: "3.13.0" });
  });

  it.each([
    [undefined, "There is no Python on this machine"],
    ["3.9.2 complete", "Python 3.9.2 (/usr/bin/python3) is too old"],
    ["3.12.1 without venv", "Python 3.12.1 (/usr/bin/python3) cannot make environments"],
  ])("where all answer %j it says why there is none, and what to do", async (line, why) => {
    const found = await findPython(machine, undefined, () => Promise.resolve(line));
    expect(found.python).toBeUndefined();
    expect(found.why).toContain(why);
    expect(found.why).toContain("then run 'peft-daemon: Set Up' again");
  });
});
