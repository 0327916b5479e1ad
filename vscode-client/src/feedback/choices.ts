/** What may be kept on this machine of what becomes of suggestions: the values of the setting, and what each means. */
import { l10n } from "vscode";

export interface Choice {
  readonly label: string;
  readonly detail: string;
  /** The setting's value. */
  readonly value: "counts" | "text" | "off";
}

const CHOICES: readonly Choice[] = [
  {
    label: l10n.t("Counts"),
    detail: l10n.t(
      "How each suggestion ended, its language and adapter, and how many characters of it were kept. No code.",
    ),
    value: "counts",
  },
  {
    label: l10n.t("Counts and code"),
    detail:
      l10n.t(
        "Also the suggestion, up to 8,000 characters of code on each side, and the file's path: what tuning can learn from. ",
      ) + l10n.t("Never of files that hold secrets."),
    value: "text",
  },
  { label: l10n.t("Nothing"), detail: l10n.t("Nothing is recorded."), value: "off" },
];

/** The choices, with the one that holds marked; `setting` is the setting's value, of earlier versions too. */
export function feedbackChoices(setting: unknown): Choice[] {
  const holds = setting === false ? "off" : setting === true ? undefined : setting;
  return CHOICES.map((choice) => (choice.value === holds ? { ...choice, label: `$(check) ${choice.label}` } : choice));
}
