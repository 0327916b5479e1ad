/** Runs a program to its end: its lines as they come, its output as a whole, its failure as a sentence. */
import { spawn } from "node:child_process";
import { homedir } from "node:os";
import { createInterface } from "node:readline";

export interface Work {
  readonly program: string;
  readonly args: readonly string[];
  /** Default: the user's home, so that nothing of a workspace is taken for a part of the program. */
  readonly cwd?: string;
  /** Variables beside those of the editor. */
  readonly env?: Readonly<Record<string, string>>;
  /** What it reads from its standard input; default: nothing. */
  readonly stdin?: string;
  /** Interrupts the program the way Ctrl-C does. */
  readonly signal?: AbortSignal;
  readonly onOutput?: (line: string) => void;
  readonly onError?: (line: string) => void;
}

export interface Ended {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Resolves when the program has ended, however it ended; rejects when it cannot be started. */
export function run(work: Work): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(work.program, work.args, {
      cwd: work.cwd ?? homedir(),
      env: { ...process.env, ...work.env },
      stdio: ["pipe", "pipe", "pipe"],
      windowsHide: true,
    });
    const interrupt = (): void => {
      child.kill("SIGINT");
    };
    const output: string[] = [];
    const errors: string[] = [];
    createInterface(child.stdout).on("line", (line) => {
      output.push(line);
      work.onOutput?.(line);
    });
    createInterface(child.stderr).on("line", (line) => {
      errors.push(line);
      work.onError?.(line);
    });
    // A program that does not read its input is none to complain about.
    child.stdin.on("error", () => undefined);
    child.once("spawn", () => {
      child.stdin.end(work.stdin ?? "");
      work.signal?.addEventListener("abort", interrupt);
      if (work.signal?.aborted) {
        interrupt();
      }
    });
    child.once("error", reject);
    child.once("close", (code) => {
      work.signal?.removeEventListener("abort", interrupt);
      resolve({ code, stdout: output.join("\n"), stderr: errors.join("\n") });
    });
  });
}
