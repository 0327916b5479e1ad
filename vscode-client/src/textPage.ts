/** A text in a document of its own, which cannot be edited. */
import * as vscode from "vscode";

export class TextPage implements vscode.TextDocumentContentProvider, vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.#changed.event;
  readonly #provider: vscode.Disposable;
  readonly #uri: vscode.Uri;
  #text = "";

  /** `name` is that of its tab, `scheme` one that no other page has. */
  constructor(scheme: string, name: string) {
    this.#provider = vscode.workspace.registerTextDocumentContentProvider(scheme, this);
    this.#uri = vscode.Uri.from({ scheme, path: name });
  }

  dispose(): void {
    this.#provider.dispose();
    this.#changed.dispose();
  }

  provideTextDocumentContent(): string {
    return this.#text;
  }

  async show(text: string): Promise<void> {
    this.#text = text;
    this.#changed.fire(this.#uri);
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(this.#uri), { preview: true });
  }
}
