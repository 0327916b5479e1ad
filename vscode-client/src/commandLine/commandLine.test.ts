import { describe, expect, it } from "vitest";
import { findCommandLine, findOnPath, type Machine, MODULE, programsIn, type Wishes } from "./commandLine";

function machine(programs: readonly string[], given: Partial<Machine> = {}): Machine {
  return {
    platform: "linux",
    home: "/home/me",
    path: "/usr/local/bin:/usr/bin",
    isProgram: (path) => Promise.resolve(programs.includes(path)),
    hasModule: () => Promise.resolve(false),
    ...given,
  };
}

const wishes: Wishes = { command: [], workspaceFolder: "/ws", environment: "/store/env" };
const everything = ["/store/env/bin/peft-daemon", "/usr/bin/peft-daemon", "/usr/bin/python3"];

describe("findCommandLine", () => {
  it("takes the setting before everything else, a list with its arguments", async () => {
    const command = ["python3", "-m", "peft_daemon"];
    expect(await findCommandLine(machine(everything), { ...wishes, command })).toEqual({
      program: "/usr/bin/python3",
      first: ["-m", "peft_daemon"],
      origin: "setting",
    });
  });

  it("takes a setting that is a string as one program, spaces and all", async () => {
    const found = await findCommandLine(machine([]), { ...wishes, command: "/opt/my tools/peft-daemon" });
    expect(found).toEqual({ program: "/opt/my tools/peft-daemon", first: [], origin: "setting" });
  });

  it("puts home and workspace folder in their places, whatever characters they have", async () => {
    const command = ["~/bin/run", "${workspaceFolder}/venv"];
    const found = await findCommandLine(machine([]), { ...wishes, command, workspaceFolder: "/w$&s" });
    expect(found).toMatchObject({ program: "/home/me/bin/run", first: ["/w$&s/venv"] });
  });

  it("leaves nothing of the setting's program to the folder it is started in", async () => {
    const dotted = machine(["bin/tool", "./tool", "tool", "/usr/bin/tool"], { path: ".::bin:/usr/bin" });
    const found = (command: unknown): Promise<unknown> => findCommandLine(dotted, { ...wishes, command });
    expect(await found("tool")).toMatchObject({ program: "/usr/bin/tool" });
    expect(await found("bin/tool")).toMatchObject({ program: "/home/me/bin/tool" });
    expect(await found(["./tool"])).toMatchObject({ program: "/home/me/tool" });
    expect(await found("nowhere")).toMatchObject({ program: "nowhere" });
  });

  it.each([[[]], [""], [undefined], [null], [[""]], [[42]], [{}]])("takes %j for no setting", async (command) => {
    expect(await findCommandLine(machine(everything), { ...wishes, command })).toMatchObject({ origin: "environment" });
  });

  it("takes the private environment before PATH", async () => {
    expect(await findCommandLine(machine(everything), wishes)).toEqual({
      program: "/store/env/bin/peft-daemon",
      first: [],
      origin: "environment",
    });
  });

  it("takes PATH before Python's module", async () => {
    const found = await findCommandLine(
      machine(everything.slice(1), { hasModule: () => Promise.resolve(true) }),
      wishes,
    );
    expect(found).toEqual({ program: "/usr/bin/peft-daemon", first: [], origin: "path" });
  });

  it("runs Python's module without the current folder's modules", async () => {
    const found = await findCommandLine(
      machine(["/usr/bin/python3"], { hasModule: () => Promise.resolve(true) }),
      wishes,
    );
    expect(found).toEqual({ program: "/usr/bin/python3", first: MODULE, origin: "python" });
    expect(MODULE).toContain("-P");
  });

  it("finds nothing where nothing is", async () => {
    expect(await findCommandLine(machine(["/usr/bin/python3"]), wishes)).toBeUndefined();
  });
});

describe("findOnPath", () => {
  it("takes the first folder that has the program", async () => {
    const both = machine(["/usr/local/bin/x", "/usr/bin/x"]);
    expect(await findOnPath(both, "x")).toBe("/usr/local/bin/x");
  });

  it("does not search folders that depend on where one is", async () => {
    const all = machine([], { path: ".:bin::/usr/bin", isProgram: () => Promise.resolve(true) });
    expect(await findOnPath(all, "peft-daemon")).toBe("/usr/bin/peft-daemon");
  });

  it("knows Windows' separators and ending", async () => {
    const windows = machine(["C:\\Tools\\peft-daemon.exe"], { platform: "win32", path: "bin;C:\\Tools" });
    expect(await findOnPath(windows, "peft-daemon")).toBe("C:\\Tools\\peft-daemon.exe");
    expect(programsIn(windows, "C:\\env").python).toBe("C:\\env\\Scripts\\python.exe");
  });
});
