/** A report's page under a policy of the extension's own: nothing is loaded, and only its own script and style apply. */
import { l10n } from "vscode";
import { createHash } from "node:crypto";

/**
 * The page with the policy as the first thing in its head. A page has one script and one style of its own; with more,
 * or with attributes on them, it is not one of ours and is shown without any.
 */
export function confined(page: string): string {
  const policy = [
    "default-src 'none'",
    `style-src ${only(page, "style")}`,
    `script-src ${only(page, "script")}`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  const meta = `<meta http-equiv="Content-Security-Policy" content="${policy}">`;
  const head = /<head\b[^>]*>/i.exec(page);
  if (!head) {
    throw new Error(l10n.t("The report has no head: it was not written by peft-daemon"));
  }
  const begin = head.index + head[0].length;
  return page.slice(0, begin) + meta + page.slice(begin);
}

function only(page: string, tag: "script" | "style"): string {
  const opened = page.match(new RegExp(`<${tag}\\b`, "gi")) ?? [];
  const [, text] = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(page) ?? [];
  return opened.length === 1 && text !== undefined
    ? `'sha256-${createHash("sha256").update(text).digest("base64")}'`
    : "'none'";
}
