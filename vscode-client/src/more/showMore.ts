/** Asks for a suggestion again where the language server has more of it than is shown. */
import * as vscode from "vscode";
import type { LanguageServer } from "../server/languageServer";
import { isSame, type Where } from "./more";

/** Does nothing when the user is somewhere else by now. */
export function showMore(server: LanguageServer, where: Where): void {
  const editor = vscode.window.activeTextEditor;
  if (editor?.selections.length !== 1 || !editor.selection.isEmpty) {
    return;
  }
  const { line, character } = editor.selection.active;
  const { uri, version } = editor.document;
  if (isSame(where, { uri: server.nameOf(uri), version, line, character })) {
    // The server answers from its memory: to it this is no request by hand.
    void vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
  }
}
