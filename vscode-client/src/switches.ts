/** Suggestions on or off for a language or a folder: what is on, and where a change is written. */
import * as vscode from "vscode";
import { fileOf } from "./notebooks";
import { toggled } from "./toggled";
import { SECTION } from "./settings";

export function languageIsOn(document: vscode.TextDocument): boolean {
  return !disabledLanguages(document).includes(document.languageId);
}

export function folderIsOn(folder: vscode.WorkspaceFolder): boolean {
  return vscode.workspace.getConfiguration(SECTION, folder).get("enabled", true);
}

/** The folder of the active editor, or the only one. */
export function activeFolder(): vscode.WorkspaceFolder | undefined {
  const document = vscode.window.activeTextEditor?.document;
  const folders = vscode.workspace.workspaceFolders ?? [];
  return (
    (document && vscode.workspace.getWorkspaceFolder(fileOf(document))) ??
    (folders.length === 1 ? folders[0] : undefined)
  );
}

/** For the active editor's language; written where the setting is written already, else for the user. */
export async function toggleLanguage(): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  if (!document) {
    throw new Error(vscode.l10n.t("Open a file of the language first"));
  }
  const settings = settingsOf(document);
  const after = toggled(disabledLanguages(document), document.languageId);
  const found = settings.inspect<string[]>("disabledLanguages");
  const target =
    found?.workspaceFolderValue !== undefined
      ? vscode.ConfigurationTarget.WorkspaceFolder
      : found?.workspaceValue !== undefined
        ? vscode.ConfigurationTarget.Workspace
        : vscode.ConfigurationTarget.Global;
  await settings.update("disabledLanguages", after, target);
}

/** For the active folder, written there; what only repeats the user's own setting is taken out again. */
export async function toggleFolder(): Promise<void> {
  const folder = activeFolder();
  if (!folder) {
    throw new Error(vscode.l10n.t("Open a file of the folder first"));
  }
  const settings = vscode.workspace.getConfiguration(SECTION, folder);
  const found = settings.inspect<boolean>("enabled");
  const wanted = !folderIsOn(folder);
  const several = vscode.workspace.workspaceFile !== undefined;
  const target = several ? vscode.ConfigurationTarget.WorkspaceFolder : vscode.ConfigurationTarget.Workspace;
  const around = (several ? found?.workspaceValue : undefined) ?? found?.globalValue ?? found?.defaultValue;
  await settings.update("enabled", around === wanted ? undefined : wanted, target);
}

function disabledLanguages(document: vscode.TextDocument): string[] {
  return settingsOf(document).get<string[]>("disabledLanguages", []);
}

function settingsOf(document: vscode.TextDocument): vscode.WorkspaceConfiguration {
  return vscode.workspace.getConfiguration(SECTION, { uri: fileOf(document), languageId: document.languageId });
}
