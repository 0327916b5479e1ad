/** The level of a line that the language server logs. */

export type Level = "debug" | "info" | "warn" | "error";

const LEVELS: Readonly<Record<string, Level>> = {
  DEBUG: "debug",
  INFO: "info",
  WARNING: "warn",
  ERROR: "error",
  CRITICAL: "error",
};

/** Lines without a level, such as those of a traceback, are errors: nobody else writes there. */
export function levelOf(line: string): Level {
  const [, level = "ERROR"] = /^\d{4}-\d\d-\d\d [\d:,.]+ \S+ ([A-Z]+) /.exec(line) ?? [];
  return LEVELS[level] ?? "error";
}
