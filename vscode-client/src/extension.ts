/** Puts the extension together: what is where, and which command does what. */
import * as vscode from "vscode";
import { findCommandLine } from "./commandLine/commandLine";
import { thisMachine } from "./commandLine/machine";
import { LanguageServer } from "./server/languageServer";
import { NEEDS_RESTART, serverSettings } from "./settings";
import { Snooze } from "./status/snooze";
import { StatusBar } from "./status/statusBar";

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel("peft-daemon", { log: true });
  const bar = new StatusBar();
  const snooze = new Snooze(() => {
    show();
  });
  const server = new LanguageServer(log, {
    provideInlineCompletionItems: (document, position, inline, token, next) =>
      snooze.until !== undefined && inline.triggerKind === vscode.InlineCompletionTriggerKind.Automatic
        ? []
        : next(document, position, inline, token),
  });
  const show = (): void => {
    bar.show(server.status, snooze.until);
  };
  const start = async (): Promise<void> => {
    const settings = serverSettings();
    const command = await findCommandLine(thisMachine, {
      command: settings.command,
      workspaceFolder: vscode.workspace.workspaceFolders?.[0]?.uri.fsPath,
      environment: vscode.Uri.joinPath(context.globalStorageUri, "env").fsPath,
    });
    await server.restart(command && { command, logLevel: settings.logLevel });
  };
  show();
  context.subscriptions.push(
    log,
    bar,
    snooze,
    server,
    server.onStatus(show),
    vscode.workspace.onDidChangeConfiguration(async (change) => {
      if (NEEDS_RESTART.some((setting) => change.affectsConfiguration(setting))) {
        await start();
      }
    }),
    vscode.commands.registerCommand("peftDaemon.snooze", () => {
      snooze.toggle();
    }),
    vscode.commands.registerCommand("peftDaemon.showLogs", () => {
      log.show();
    }),
    vscode.commands.registerCommand("peftDaemon.trigger", () =>
      vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
    ),
  );
  await start();
}
