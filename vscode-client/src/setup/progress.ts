/** How far the setting-up is, from what pip prints and from what the model store has. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

/** A line of pip in few words; undefined for lines that say nothing new. */
export function pipStep(line: string): string | undefined {
  const [, verb, what] =
    /^\s*(Collecting|Downloading|Building wheel for|Installing collected packages)[: ]\s*(\S+)/.exec(line) ?? [];
  switch (verb) {
    case "Collecting":
      return l10n.t("looking for {0}", what ?? "");
    case "Downloading":
      return `fetching ${what?.split("/").at(-1)}`;
    case "Building wheel for":
      return `building ${what}`;
    case "Installing collected packages":
      return l10n.t("installing what was fetched");
    default:
      return undefined;
  }
}

export interface ModelState {
  readonly id: string;
  readonly bytes: number;
  readonly stagedBytes: number;
  readonly installed: boolean;
}

/** The state of a model in the answer of `peft-daemon models list --json`. */
export function modelState(answer: unknown, id: string): ModelState | undefined {
  const row = (Array.isArray(answer) ? answer : []).find((each: unknown) => isRecord(each) && each["id"] === id) as
    Readonly<Record<string, unknown>> | undefined;
  return (
    row && {
      id: String(row["id"]),
      bytes: Number(row["bytes"]),
      stagedBytes: Number(row["staged_bytes"]),
      installed: row["installed"] === true,
    }
  );
}

/** `120 of 491 MB`. */
export function fetched({ stagedBytes, bytes }: ModelState): string {
  return `${Math.round(stagedBytes / 1e6)} of ${Math.round(bytes / 1e6)} MB`;
}
