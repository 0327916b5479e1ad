/** A proposed edit: read from the server's answer, applied to a text, followed through other edits. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

export interface Position {
  readonly line: number;
  readonly character: number;
}

/** The server's answer to a command that proposes something, whole or as far as it is written. */
export interface Proposed {
  readonly uri: string;
  /** Of the document that the range is about. */
  readonly version: number;
  readonly range: { readonly start: Position; readonly end: Position };
  readonly newText: string;
  readonly title: string;
  /** The text is for a file of this name, and not for the document. */
  readonly fileName?: string;
}

/** A part of a text, in UTF-16 units. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** An edit that was made: what it replaced, and how long the new text is. */
export interface Change extends Span {
  readonly inserted: number;
}

/** The answer; undefined for none. Throws for what is no proposal: another version of the server. */
export function readProposed(answer: unknown): Proposed | undefined {
  if (answer === null || answer === undefined) {
    return undefined;
  }
  if (isRecord(answer) && isRecord(answer["range"])) {
    const { uri, version, newText, title, fileName } = answer;
    const [start, end] = [position(answer["range"]["start"]), position(answer["range"]["end"])];
    if (typeof uri === "string" && typeof version === "number" && typeof newText === "string" && start && end) {
      const found = {
        uri,
        version,
        range: { start, end },
        newText,
        title: typeof title === "string" ? title : l10n.t("Proposal"),
      };
      return typeof fileName === "string" ? { ...found, fileName } : found;
    }
  }
  throw new Error(
    l10n.t("The language server's answer is no proposal: it and the extension are of different versions"),
  );
}

/** The text with the span replaced. */
export function applied(text: string, span: Span, newText: string): string {
  return text.slice(0, span.start) + newText + text.slice(span.end);
}

/** Where the span lies after the change; undefined when the change touches it. */
export function followed(span: Span, change: Change): Span | undefined {
  if (change.start > span.end) {
    return span;
  }
  if (change.end < span.start) {
    const by = change.inserted - (change.end - change.start);
    return { start: span.start + by, end: span.end + by };
  }
  return undefined;
}

function position(value: unknown): Position | undefined {
  if (isRecord(value) && typeof value["line"] === "number" && typeof value["character"] === "number") {
    return { line: value["line"], character: value["character"] };
  }
  return undefined;
}
