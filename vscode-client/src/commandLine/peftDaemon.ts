/** peft-daemon's own commands, as the extension runs them. */
import { answer, CommandFailed } from "./answers";
import type { CommandLine } from "./commandLine";
import { type Ended, run, type Work } from "./running";

export type Options = Omit<Work, "program" | "args">;

/** Run a command to its end. */
export function runCommand(command: CommandLine, args: readonly string[], options: Options = {}): Promise<Ended> {
  return run({ ...options, program: command.program, args: [...command.first, ...args] });
}

/** The answer of a command with `--json`; throws CommandFailed with its own sentence. */
export async function ask(command: CommandLine, args: readonly string[], options: Options = {}): Promise<unknown> {
  return answer(await runCommand(command, [...args, "--json"], options));
}

/** The command, or the error that says how to get one. */
export function required(command: CommandLine | undefined): CommandLine {
  if (!command) {
    throw new CommandFailed("peft-daemon is not set up. Run 'peft-daemon: Set Up'");
  }
  return command;
}
