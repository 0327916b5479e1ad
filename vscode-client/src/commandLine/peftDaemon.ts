/** peft-daemon's own commands, as the extension runs them. */
import { l10n } from "vscode";
import { answer, CommandFailed } from "./answers";
import type { CommandLine } from "./commandLine";
import { type Ended, run, type Work } from "./running";

export type Options = Omit<Work, "program" | "args">;

/** Run a command to its end; throws CommandFailed when it cannot be started. */
export async function runCommand(command: CommandLine, args: readonly string[], options: Options = {}): Promise<Ended> {
  try {
    return await run({ ...options, program: command.program, args: [...command.first, ...args] });
  } catch (error) {
    throw startFailure(command, error);
  }
}

/** Why a program could not be started, and what to do. */
export function startFailure({ program, origin }: CommandLine, error: unknown): CommandFailed {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const what =
    code === "ENOENT"
      ? l10n.t("There is no program '{0}'", program)
      : code === "EACCES"
        ? l10n.t("The file '{0}' is no program, or may not be started", program)
        : l10n.t(
            "The program '{0}' cannot be started ({1})",
            program,
            error instanceof Error ? error.message : String(error),
          );
  const fix =
    origin === "setting"
      ? l10n.t("Correct the setting 'peft-daemon.command', or empty it and run 'peft-daemon: Set Up'")
      : l10n.t("Run 'peft-daemon: Set Up'");
  return new CommandFailed(`${what}. ${fix}`);
}

/** The answer of a command with `--json`; throws CommandFailed with its own sentence. */
export async function ask(command: CommandLine, args: readonly string[], options: Options = {}): Promise<unknown> {
  return answer(await runCommand(command, [...args, "--json"], options));
}

/** The command, or the error that says how to get one. */
export function required(command: CommandLine | undefined): CommandLine {
  if (!command) {
    throw new CommandFailed(l10n.t("peft-daemon is not set up. Run 'peft-daemon: Set Up'"));
  }
  return command;
}
