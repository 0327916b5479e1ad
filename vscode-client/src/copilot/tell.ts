/** Tells once that GitHub Copilot writes suggestions too: the editor shows one of both at a time. */
import * as vscode from "vscode";
import { SECTION } from "../settings";
import { COPILOT, copilotCompletes } from "./copilot";

const TOLD = "peftDaemon.toldOfCopilot";

/** Does nothing where Copilot is off, our suggestions are, or the user was told before. */
export async function tellOfCopilot(memory: vscode.Memento): Promise<void> {
  const copilot = vscode.workspace.getConfiguration("github.copilot");
  const on = copilotCompletes(
    // Where the code is on another machine it may run beside the window, where only its settings are to be seen from here.
    COPILOT.some((id) => vscode.extensions.getExtension(id)) || copilot.inspect("enable")?.defaultValue !== undefined,
    copilot.get("enable"),
    vscode.workspace.getConfiguration("editor").get<boolean>("inlineSuggest.enabled", true),
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
