/** The item in the status bar: what the service is doing, and the menu behind it. */
import * as vscode from "vscode";
import { type Status, shown } from "./status";

export class StatusBar implements vscode.Disposable {
  readonly #item = vscode.window.createStatusBarItem("peftDaemon.status", vscode.StatusBarAlignment.Right, 100);

  #label = "peft-daemon";

  constructor() {
    this.#item.name = "peft-daemon";
    this.#item.command = "peftDaemon.menu";
    this.#item.show();
  }

  /** All that it says, in one sentence. */
  get label(): string {
    return this.#label;
  }

  show(status: Status, snoozedUntil: Date | undefined, document: string | undefined): void {
    const { text, label, alarming } = shown(
      status,
      snoozedUntil?.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }),
      document,
    );
    this.#item.text = text;
    this.#label = label;
    this.#item.accessibilityInformation = { label, role: "button" };
    this.#item.tooltip = new vscode.MarkdownString()
      .appendText(label)
      .appendMarkdown(`\n\n${vscode.l10n.t("Click for the menu")}`);
    this.#item.backgroundColor = alarming ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
  }

  dispose(): void {
    this.#item.dispose();
  }
}
