/** The language server's process. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { homedir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandLine } from "../commandLine/commandLine";
import { startFailure } from "../commandLine/peftDaemon";

const GRACE_MS = 2000;

/** Starts `peft-daemon lsp`, in the home folder: nothing of a workspace is taken for a part of it. Throws CommandFailed. */
export async function startServer(command: CommandLine, logLevel: string): Promise<ChildProcess> {
  const child = spawn(command.program, serverArguments(command, logLevel), { cwd: homedir(), windowsHide: true });
  try {
    await once(child, "spawn");
  } catch (error) {
    throw startFailure(command, error);
  }
  return child;
}

export function serverArguments(command: CommandLine, logLevel: string): string[] {
  // Without options the command answers sooner: it need not load its command line's library.
  const options = logLevel === "warning" ? [] : ["--log-level", logLevel];
  return [...command.first, "lsp", ...options];
}

/** Resolves when the process is gone: by itself, else by force. */
export async function gone(child: ChildProcess, graceMs = GRACE_MS): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const exit = once(child, "exit");
    const late = sleep(graceMs).then(() => child.kill("SIGKILL"));
    await Promise.race([exit, late]);
    await exit;
  }
}
