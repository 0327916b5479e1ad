/** Why there was a suggestion or none, as *Why?* shows it. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

/** `label` is what the status bar says, `answer` the server's to `peft-daemon.why`, `document` the one it is about. */
export function whyText(label: string, answer: unknown, document: string | undefined): string {
  const told = isRecord(answer) && typeof answer["text"] === "string" ? answer["text"] : "";
  const about = document === undefined ? l10n.t("in all documents") : l10n.t("in {0}", document);
  return `${label}\n\n${about}\n${told}\n\n${l10n.t("More of them: `peft-daemon why --last 20`")}\n`;
}
