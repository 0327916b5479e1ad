/** What may be kept on this machine of what becomes of suggestions: the values of the setting, and what each means. */

export interface Choice {
  readonly label: string;
  readonly detail: string;
  /** The setting's value. */
  readonly value: "counts" | "text" | "off";
}

const CHOICES: readonly Choice[] = [
  {
    label: "Counts",
    detail: "How each suggestion ended, its language and adapter, and how many characters of it were kept. No code.",
    value: "counts",
  },
  {
    label: "Counts and code",
    detail:
      "Also the suggestion, up to 8,000 characters of code on each side, and the file's path: what tuning can learn from. " +
      "Never of files that hold secrets.",
    value: "text",
  },
  { label: "Nothing", detail: "Nothing is recorded.", value: "off" },
];

/** The choices, with the one that holds marked; `setting` is the setting's value, of earlier versions too. */
export function feedbackChoices(setting: unknown): Choice[] {
  const holds = setting === false ? "off" : setting === true ? undefined : setting;
  return CHOICES.map((choice) => (choice.value === holds ? { ...choice, label: `$(check) ${choice.label}` } : choice));
}
