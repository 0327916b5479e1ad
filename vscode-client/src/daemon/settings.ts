/** The daemon's settings, which are kept in one file for all editors: as a list to choose from, and what each may be. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

export type Value = string | number | boolean;

export interface DaemonSetting {
  readonly name: string;
  readonly value: Value;
  /** `default`, `user file`, `environment`. */
  readonly source: string;
  readonly description: string;
  readonly default: Value;
  readonly allowed: Allowed;
}

export interface Allowed {
  readonly type: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
}

export interface SettingPick {
  readonly label: string;
  readonly description: string;
  readonly detail: string;
  readonly setting: DaemonSetting;
}

/** What users change most often; the others come after these, as the command lists them. */
const FIRST = [
  ...["threads", "wait_policy", "repository_context", "prompt_tokens", "memory_limit_mb", "unload_after_s"],
  ...["learn", "learn_minutes", "learn_idle_s"],
];

/** The rows of `peft-daemon config --json`; what is none is left out. */
export function readDaemonSettings(answer: unknown): DaemonSetting[] {
  return (Array.isArray(answer) ? answer : []).flatMap((row: unknown) => {
    if (!isRecord(row) || typeof row["name"] !== "string" || !isValue(row["value"])) {
      return [];
    }
    return {
      name: row["name"],
      value: row["value"],
      source: String(row["source"]),
      description: String(row["description"]),
      default: isValue(row["default"]) ? row["default"] : row["value"],
      allowed: (isRecord(row["allowed"]) ? row["allowed"] : { type: "string" }) as unknown as Allowed,
    };
  });
}

/** All settings with their values, those that are changed most often first. */
export function settingPicks(settings: readonly DaemonSetting[]): SettingPick[] {
  const place = ({ name }: DaemonSetting): number => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return [...settings]
    .sort((a, b) => place(a) - place(b))
    .map((setting) => ({
      label: setting.name,
      description: `${shownValue(setting.value)}${sourceNote(setting)}`,
      detail: setting.description,
      setting,
    }));
}

/** The values to choose from; undefined where one has to be typed. */
export function choicesOf({ allowed }: DaemonSetting): readonly string[] | undefined {
  return allowed.type === "boolean" ? ["true", "false"] : allowed.enum;
}

/** Why a typed value is not allowed; undefined when it is. The command itself has the last word. */
export function objection({ allowed }: DaemonSetting, typed: string): string | undefined {
  if (allowed.type !== "integer" || typed === "") {
    return undefined;
  }
  const { minimum = -Infinity, maximum = Infinity } = allowed;
  const number = Number(typed);
  return /^-?\d+$/.test(typed) && number >= minimum && number <= maximum
    ? undefined
    : l10n.t("A whole number from {0} to {1}", minimum, maximum);
}

export function shownValue(value: Value): string {
  return value === "" ? l10n.t("empty") : String(value);
}

/** What was in the user's own file, to go back to; undefined: nothing was. */
export function writtenValue({ value, source }: DaemonSetting): Value | undefined {
  return source === "user file" ? value : undefined;
}

function sourceNote({ source }: DaemonSetting): string {
  switch (source) {
    case "user file":
      return "";
    case "default":
      return ` (${l10n.t("default")})`;
    default:
      return ` (${l10n.t("set by the environment, which wins over your choice")})`;
  }
}

function isValue(value: unknown): value is Value {
  return ["string", "number", "boolean"].includes(typeof value);
}
