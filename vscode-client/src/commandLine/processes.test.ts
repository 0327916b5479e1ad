import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, it } from "vitest";
import { birthOf, isRunning } from "./processes";

it("a process runs until it has ended, and its birth stays the same", async () => {
  const child = spawn(process.execPath, ["-e", "setInterval(() => 0, 1000)"]);
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const birth = await birthOf(pid);
  expect(birth === "").toBe(process.platform === "win32");
  expect(await birthOf(pid)).toBe(birth);
  expect(await isRunning(pid)).toBe(true);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(await isRunning(pid)).toBe(false);
  expect(await birthOf(pid)).toBe("");
});
