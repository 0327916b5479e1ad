/** Small bridges between the editor's interface and the rest. */
import * as vscode from "vscode";
import { CANCELLED, CommandFailed } from "./commandLine/answers";
import { remedies } from "./remedies";

/** A signal that is aborted when the user presses Cancel. */
export function aborting(token: vscode.CancellationToken): AbortSignal {
  const controller = new AbortController();
  token.onCancellationRequested(() => {
    controller.abort();
  });
  return controller.signal;
}

type Show = (message: string, ...buttons: string[]) => Thenable<string | undefined>;

/** Show a message with a button for each command that it tells, and do what is pressed. A message without is cut short. */
export async function tell(show: Show, message: string): Promise<void> {
  const offered = [
    ...remedies(message),
    { label: vscode.l10n.t("Show Logs"), command: "peftDaemon.showLogs", args: [] },
  ];
  const pressed = await show(message, ...offered.map(({ label }) => label));
  const chosen = offered.find(({ label }) => label === pressed);
  if (chosen) {
    await vscode.commands.executeCommand(chosen.command, ...(chosen.args ?? []));
  }
}

export const showError: Show = (message, ...buttons) => vscode.window.showErrorMessage(message, ...buttons);
export const showInformation: Show = (message, ...buttons) => vscode.window.showInformationMessage(message, ...buttons);
export const showWarning: Show = (message, ...buttons) => vscode.window.showWarningMessage(message, ...buttons);

/** Register a command whose failures are shown as one sentence, and logged. */
export function command(
  id: string,
  log: vscode.LogOutputChannel,
  run: (...args: never[]) => unknown,
): vscode.Disposable {
  return vscode.commands.registerCommand(id, async (...args: never[]) => {
    try {
      await run(...args);
    } catch (error) {
      if (error instanceof CommandFailed && error.code === CANCELLED) {
        return;
      }
      log.error(`${id}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      await tell(showError, error instanceof Error ? error.message : String(error));
    }
  });
}
