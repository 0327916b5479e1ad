/** What `peft-daemon … --json` prints: one or more JSON documents, the last of which may be an error. */
import { l10n } from "vscode";
import type { Ended } from "./running";

/** A failure in the command's own words. */
export class CommandFailed extends Error {
  override readonly name = "CommandFailed";
  /** Stable identifier for programs, such as `conflict`; empty when the command gave none. */
  readonly code: string;
  /** What happened, without reason and advice; empty when the command gave none. */
  readonly what: string;

  constructor(message: string, code = "", what = "") {
    super(message);
    this.code = code;
    this.what = what;
  }
}

export const CANCELLED = "cancelled";

/** The documents of an output, in order; text between them is left out. */
export function documents(output: string): unknown[] {
  const found: unknown[] = [];
  let pending: string[] = [];
  for (const line of output.split(/\r?\n/)) {
    if (pending.length === 0 && !/^[[{]/.test(line)) {
      continue;
    }
    pending.push(line);
    // A document is indented, so it ends with a bracket at the margin.
    if (/^[\]}]|^[[{].*[\]}]$/.test(line)) {
      const document = parsed(pending.join("\n"));
      if (document !== undefined) {
        found.push(document);
        pending = [];
      }
    }
  }
  return found;
}

/** The command's answer; throws CommandFailed with its sentence when there is none. */
export function answer(ended: Ended): unknown {
  const [first] = documents(ended.stdout);
  const failure = failureIn(ended);
  if (failure) {
    throw failure;
  }
  return first;
}

/** Why a command failed; undefined when it did not. */
export function failureIn(ended: Ended): CommandFailed | undefined {
  const told = documents(ended.stdout).map(toldFailure).find(Boolean);
  if (told) {
    return told;
  }
  if (ended.code === 0) {
    return undefined;
  }
  if (ended.code === 130 || ended.code === null) {
    return new CommandFailed(l10n.t("peft-daemon was interrupted"), CANCELLED);
  }
  const last = ended.stderr.split("\n").findLast((line) => line.trim() !== "");
  return new CommandFailed(last?.trim() ?? l10n.t("peft-daemon ended with exit code {0} and said nothing", ended.code));
}

/** The error that a document holds. */
export function toldFailure(document: unknown): CommandFailed | undefined {
  const error = isRecord(document) ? document["error"] : undefined;
  if (!isRecord(error) || typeof error["message"] !== "string") {
    return undefined;
  }
  const [code, what] = [error["code"], error["what"]].map((each) => (typeof each === "string" ? each : ""));
  return new CommandFailed(error["message"], code, what);
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A line of JSON; undefined for anything else. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
