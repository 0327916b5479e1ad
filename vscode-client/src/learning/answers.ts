/** What the command line tells of learning, adapters and accepted suggestions. */
import { isRecord } from "../commandLine/answers";

export interface Acceptance {
  readonly accepted: number;
  readonly decided: number;
}

export interface Serving {
  /** Empty: the model without an adapter. */
  readonly name: string;
  /** Milliseconds since 1970; undefined: not known. */
  readonly since: number | undefined;
  /** Learned in the background: it can be rolled back. */
  readonly learned: boolean;
  readonly gain:
    | {
        readonly exact: number;
        readonly before: number;
        readonly places: number;
        readonly low: number;
        readonly high: number;
      }
    | undefined;
  readonly acceptance: Acceptance;
  readonly before: Acceptance | undefined;
}

export interface Repository {
  readonly root: string;
  readonly choice: string;
  readonly activity: string;
  readonly line: string;
  readonly last: string;
  readonly lastAt: number | undefined;
  readonly serving: Serving | undefined;
}

export interface Learning {
  readonly setting: string;
  readonly minutesToday: number;
  readonly minutesADay: number;
  /** How long it is paused; empty: it is not. */
  readonly paused: string;
  /** Packages that are not installed. */
  readonly missing: readonly string[];
  /** Undefined: the folder is in no repository. */
  readonly here: Repository | undefined;
}

export interface LogEntry {
  readonly time: number;
  readonly event: string;
  readonly text: string;
}

/** The answer of `learn status --json`; undefined: it is another. */
export function readLearning(answer: unknown): Learning | undefined {
  if (!isRecord(answer) || typeof answer["setting"] !== "string") {
    return undefined;
  }
  const missing = Array.isArray(answer["missing"]) ? answer["missing"] : [];
  return {
    setting: answer["setting"],
    minutesToday: Number(answer["minutes_today"]),
    minutesADay: Number(answer["minutes_a_day"]),
    paused: typeof answer["paused"] === "string" ? answer["paused"] : "",
    missing: missing.map(String),
    here: isRecord(answer["here"]) ? readRepository(answer["here"]) : undefined,
  };
}

/** The entries of `learn log --json`, the newest first. */
export function readLog(answer: unknown): LogEntry[] {
  const entries = isRecord(answer) && Array.isArray(answer["entries"]) ? answer["entries"].filter(isRecord) : [];
  return entries
    .map((entry) => ({
      time: 1000 * Number(entry["time"]),
      event: String(entry["event"]),
      text: String(entry["text"]),
    }))
    .reverse();
}

/** Characters accepted and still there, of 100 shown, in `feedback show --json`; undefined: nothing was shown yet. */
export function readKept(answer: unknown): number | undefined {
  const kept = isRecord(answer) ? answer["kept_per_100_shown"] : undefined;
  return typeof kept === "number" ? kept : undefined;
}

function readRepository(row: Readonly<Record<string, unknown>>): Repository {
  const words = (name: string): string => (typeof row[name] === "string" ? row[name] : "");
  return {
    root: words("root"),
    choice: words("choice"),
    activity: words("activity"),
    line: words("line"),
    last: words("last"),
    lastAt: instant(row["last_at"]),
    serving: isRecord(row["serving"]) ? readServing(row["serving"]) : undefined,
  };
}

function readServing(row: Readonly<Record<string, unknown>>): Serving {
  const gain = isRecord(row["gain"]) ? row["gain"] : undefined;
  return {
    name: typeof row["name"] === "string" ? row["name"] : "",
    since: instant(row["since"]),
    learned: row["learned"] === true,
    gain: gain && {
      exact: Number(gain["exact"]),
      before: Number(gain["exact_before"]),
      places: Number(gain["places"]),
      low: Number(gain["low"]),
      high: Number(gain["high"]),
    },
    acceptance: readAcceptance(row["acceptance"]) ?? { accepted: 0, decided: 0 },
    before: readAcceptance(row["acceptance_before"]),
  };
}

function readAcceptance(value: unknown): Acceptance | undefined {
  return isRecord(value) ? { accepted: Number(value["accepted"]), decided: Number(value["decided"]) } : undefined;
}

function instant(seconds: unknown): number | undefined {
  return typeof seconds === "number" && seconds > 0 ? 1000 * seconds : undefined;
}
