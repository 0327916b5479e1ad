/** The user refuses the suggestion that is shown: it goes, and the server does not bring it back. */
import * as vscode from "vscode";
import type { LanguageServer } from "../server/languageServer";

const DISMISSED = "peft-daemon/dismissed";

export async function dismiss(server: LanguageServer): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (editor) {
    const { line, character } = editor.selection.active;
    server.notify(DISMISSED, { uri: server.nameOf(editor.document.uri), position: { line, character } });
  }
  await vscode.commands.executeCommand("editor.action.inlineSuggest.hide");
}
