/** Tells once that GitHub Copilot writes suggestions too: the editor shows one of both at a time. */
import * as vscode from "vscode";
import { SECTION } from "../settings";
import { copilotCompletes } from "./copilot";

const TOLD = "peftDaemon.toldOfCopilot";

/** Does nothing where Copilot is off, our suggestions are, or the user was told before. */
export async function tellOfCopilot(memory: vscode.Memento): Promise<void> {
  const on = copilotCompletes(
    (id) => vscode.extensions.getExtension(id) !== undefined,
    vscode.workspace.getConfiguration("github.copilot").get("enable"),
    vscode.workspace.getConfiguration("editor").get("inlineSuggest.enabled", true),
  );
  const ours = vscode.workspace.getConfiguration(SECTION);
  if (!on || !ours.get<boolean>("enabled", true) || memory.get<boolean>(TOLD, false)) {
    return;
  }
  await memory.update(TOLD, true);
  const [off, both] = [vscode.l10n.t("Turn peft-daemon Off Here"), vscode.l10n.t("Leave Both")];
  const chosen = await vscode.window.showInformationMessage(
    vscode.l10n.t("GitHub Copilot is on too. Both write suggestions, and the editor shows one of them at a time."),
    off,
    both,
  );
  if (chosen === off) {
    const folders = vscode.workspace.workspaceFolders ?? [];
    const target = folders.length > 0 ? vscode.ConfigurationTarget.Workspace : vscode.ConfigurationTarget.Global;
    await ours.update("enabled", false, target);
  }
}
