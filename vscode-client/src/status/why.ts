/** Why there was a suggestion or none, as *Why?* shows it. */
import { isRecord } from "../commandLine/answers";

/** `label` is what the status bar says, `answer` the server's to `peft-daemon.why`, `document` the one it is about. */
export function whyText(label: string, answer: unknown, document: string | undefined): string {
  const told = isRecord(answer) && typeof answer["text"] === "string" ? answer["text"] : "";
  const about = document === undefined ? "in all documents" : `in ${document}`;
  return `${label}\n\n${about}\n${told}\n\nMore of them: \`peft-daemon why --last 20\`\n`;
}
