/** What `peft-daemon doctor --json` found, as a text. */
import { isRecord } from "../commandLine/answers";

export function findingsText(document: unknown): string {
  const checks: unknown[] = isRecord(document) && Array.isArray(document["checks"]) ? document["checks"] : [];
  const lines = checks.flatMap((check) => {
    if (!isRecord(check)) {
      return [];
    }
    const found = `${check["ok"] === true ? "ok " : "BAD"}  ${String(check["name"]).padEnd(9)} ${String(check["detail"])}`;
    const fix = check["fix"];
    return typeof fix === "string" && fix !== "" ? [found, `               → ${fix}`] : [found];
  });
  return `${lines.join("\n")}\n`;
}
