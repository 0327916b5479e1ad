/** Tells the language server where the cursor stands, so that the model reads ahead there. */
import * as vscode from "vscode";
import type { LanguageServer } from "../server/languageServer";
import { Moves } from "./moves";

const CURSOR = "peft-daemon/cursor";

export class Cursor implements vscode.Disposable {
  readonly #server: LanguageServer;
  readonly #moves = new Moves();
  readonly #listening: vscode.Disposable;

  constructor(server: LanguageServer) {
    this.#server = server;
    this.#listening = vscode.Disposable.from(
      vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => {
        this.#tell(textEditor);
      }),
      vscode.window.onDidChangeActiveTextEditor((editor) => {
        this.#tell(editor);
      }),
      server.onStarted(() => {
        this.#moves.forget();
        this.#tell(vscode.window.activeTextEditor);
      }),
    );
  }

  dispose(): void {
    this.#listening.dispose();
  }

  #tell(editor: vscode.TextEditor | undefined): void {
    if (!editor || editor !== vscode.window.activeTextEditor || !editor.selection.isEmpty) {
      return;
    }
    const { line, character } = editor.selection.active;
    const { uri, version } = editor.document;
    const seen = { uri: uri.toString(), version, cursor: { line, character } };
    // A document the server does not know it ignores.
    if (this.#moves.isMove(seen)) {
      this.#server.notify(CURSOR, { uri: this.#server.nameOf(uri), position: seen.cursor });
    }
  }
}
