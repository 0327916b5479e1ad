/** Small bridges between the editor's interface and the rest. */
import * as vscode from "vscode";
import { CANCELLED, CommandFailed } from "./commandLine/answers";

/** A signal that is aborted when the user presses Cancel. */
export function aborting(token: vscode.CancellationToken): AbortSignal {
  const controller = new AbortController();
  token.onCancellationRequested(() => {
    controller.abort();
  });
  return controller.signal;
}

/** Register a command whose failures are shown as one sentence, and logged. */
export function command(id: string, log: vscode.LogOutputChannel, run: () => unknown): vscode.Disposable {
  return vscode.commands.registerCommand(id, async () => {
    try {
      await run();
    } catch (error) {
      if (error instanceof CommandFailed && error.code === CANCELLED) {
        return;
      }
      log.error(`${id}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      const message = error instanceof Error ? error.message : String(error);
      if ((await vscode.window.showErrorMessage(message, "Show Logs")) === "Show Logs") {
        log.show();
      }
    }
  });
}
