/** The settings below `peft-daemon` that the extension itself reads, and where it writes others. */
import * as vscode from "vscode";

export const SECTION = "peft-daemon";
/** A change of these needs another language server; the server follows all others itself. */
export const NEEDS_RESTART = [`${SECTION}.command`, `${SECTION}.logLevel`] as const;

export interface ServerSettings {
  readonly command: unknown;
  readonly logLevel: string;
}

export function serverSettings(): ServerSettings {
  const settings = vscode.workspace.getConfiguration(SECTION);
  return { command: settings.get("command"), logLevel: settings.get("logLevel", "warning") };
}

/** Options that `tune` gets before those the extension itself decides. */
export function tuneArguments(): readonly string[] {
  const given: unknown = vscode.workspace.getConfiguration(SECTION).get("tuneArguments");
  return Array.isArray(given) ? given.map(String) : [];
}

/** Options that `pip install` gets when Set Up runs it. */
export function pipArguments(): readonly string[] {
  const given: unknown = vscode.workspace.getConfiguration(SECTION).get("pipArguments");
  return Array.isArray(given) ? given.map(String) : [];
}

/** The settings that the language server reads; the others are the extension's own. */
export const OF_SERVER = [
  ...["enabled", "disabledLanguages", "disabledFiles", "silentIn", "nextEdits", "adapter", "feedback"],
  ...["maxTokens", "timeBudgetMs", "delayMs", "showAfterMs", "eagerness"],
];
export const OF_EXTENSION = ["command", "pipArguments", "tuneArguments", "logLevel"];

/** The settings' values as the language server's initialization options: they hold until it has asked for its own. */
export function initializationOptions(): Record<string, unknown> {
  const settings = vscode.workspace.getConfiguration(SECTION);
  return Object.fromEntries(OF_SERVER.map((name) => [name, settings.get(name)]));
}
