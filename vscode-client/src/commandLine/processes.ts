/** Processes that this one may not have started: whether they run, and whether they are the ones that were meant. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

/** What tells a process from a later one with the same number; empty where the system does not say. */
export async function birthOf(pid: number): Promise<string> {
  try {
    if (process.platform === "linux") {
      return (await linuxFacts(pid)).birth;
    }
    if (process.platform === "darwin") {
      const { stdout } = await promisify(execFile)("/bin/ps", ["-o", "lstart=", "-p", String(pid)]);
      return stdout.trim();
    }
  } catch {
    // There is no such process.
  }
  return "";
}

/** Whether a process with this number runs; one that has ended and is not yet collected does not. */
export async function isRunning(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
    return process.platform !== "linux" || (await linuxFacts(pid)).state !== "Z";
  } catch {
    return false;
  }
}

async function linuxFacts(pid: number): Promise<{ readonly state: string; readonly birth: string }> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name before it is in brackets and may contain anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", birth: fields[19] ?? "" };
}
