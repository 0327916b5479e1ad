/** The menu behind the status bar item. */
import * as vscode from "vscode";
import type { LanguageServer } from "../server/languageServer";
import type { Snooze } from "../status/snooze";
import { activeFolder, folderIsOn, languageIsOn } from "../switches";
import { menuItems } from "./items";

export class Menu {
  readonly #server: LanguageServer;
  readonly #snooze: Snooze;

  constructor(server: LanguageServer, snooze: Snooze) {
    this.#server = server;
    this.#snooze = snooze;
  }

  async open(): Promise<void> {
    const document = vscode.window.activeTextEditor?.document;
    const folder = activeFolder();
    const { status, isSetUp } = this.#server;
    const items = menuItems({
      status,
      setUp: isSetUp,
      snoozed: this.#snooze.until !== undefined,
      language: document && { id: document.languageId, on: languageIsOn(document) },
      folder: folder && { name: folder.name, on: folderIsOn(folder) },
      trusted: vscode.workspace.isTrusted,
    });
    const off = document && status.off.get(this.#server.nameOf(document.uri));
    const said = status.state === "error" ? status.message : off;
    const title = said ? vscode.l10n.t("peft-daemon: {0}", said) : "peft-daemon";
    const picked = await vscode.window.showQuickPick(items, {
      title,
      placeHolder: vscode.l10n.t("What is to be done?"),
    });
    if (picked) {
      await vscode.commands.executeCommand(picked.command, ...(picked.args ?? []));
    }
  }
}
