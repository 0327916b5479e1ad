import { describe, expect, it } from "vitest";
import { run } from "./running";

const node = (script: string, given = {}) => run({ program: process.execPath, args: ["-e", script], ...given });

describe("run", () => {
  it("gives output, complaints and exit code, and each line on the way", async () => {
    const lines: string[] = [];
    const script = "console.log('one\\ntwo'); console.error('bad'); process.exitCode = 3";
    const ended = await node(script, { onOutput: (line: string) => lines.push(line) });
    expect(ended).toEqual({ code: 3, stdout: "one\ntwo", stderr: "bad" });
    expect(lines).toEqual(["one", "two"]);
  });

  it("interrupts the way Ctrl-C does, and waits for the program's last words", async () => {
    const controller = new AbortController();
    const script =
      "process.on('SIGINT', () => { console.log('saved'); process.exit(130) }); console.log('ready'); setInterval(() => 0, 1000)";
    const onOutput = (line: string): void => {
      if (line === "ready") {
        controller.abort();
      }
    };
    expect(await node(script, { signal: controller.signal, onOutput })).toMatchObject({
      code: 130,
      stdout: "ready\nsaved",
    });
  });

  it("interrupts at once when it was called off before", async () => {
    expect(await node("setInterval(() => 0, 1000)", { signal: AbortSignal.abort() })).toMatchObject({ code: null });
  });

  it("rejects when the program is not there", async () => {
    await expect(run({ program: "/nowhere/peft-daemon", args: [] })).rejects.toThrow("ENOENT");
  });
});
