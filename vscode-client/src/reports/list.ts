/** The evaluations that have a report, as a list to choose from. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

export interface ReportPick {
  readonly label: string;
  readonly description: string;
  readonly detail: string;
  readonly name: string;
}

/** From the answer of `peft-daemon report list --json`, which has the newest last; here it is first. */
export function reportPicks(answer: unknown): ReportPick[] {
  const picks = (Array.isArray(answer) ? answer : []).flatMap((row: unknown) => {
    if (!isRecord(row) || typeof row["name"] !== "string") {
      return [];
    }
    const strategies = Array.isArray(row["strategies"]) ? row["strategies"].map(String).join(", ") : "";
    return {
      label: row["name"],
      description: String(row["created"]).slice(0, 16).replace("T", " "),
      detail: l10n.t(
        "{0}, {1} items: {2} · {3}",
        String(row["data"]),
        String(row["items"]),
        strategies,
        String(row["model"]),
      ),
      name: row["name"],
    };
  });
  return picks.reverse();
}
