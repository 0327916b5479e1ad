/** Lets the user choose what is kept of suggestions. Nothing but this command, from the menu or the palette, asks. */
import * as vscode from "vscode";
import { SECTION } from "../settings";
import { feedbackChoices } from "./choices";

export async function chooseFeedback(): Promise<void> {
  const settings = vscode.workspace.getConfiguration(SECTION);
  const options = {
    title: vscode.l10n.t("What may be kept of suggestions"),
    placeHolder: vscode.l10n.t(
      "It stays on this machine and is sent nowhere. `peft-daemon feedback show` tells what is there.",
    ),
  };
  const picked = await vscode.window.showQuickPick(feedbackChoices(settings.get("feedback")), options);
  if (picked) {
    await settings.update("feedback", picked.value, vscode.ConfigurationTarget.Global);
  }
}
