/** What the language server tells of itself, and how the status bar says it. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

export const STATES = ["idle", "thinking", "loading", "off", "error"] as const;
export type State = (typeof STATES)[number];

export interface Status {
  readonly state: State;
  readonly model: string;
  /** Empty: none. */
  readonly adapter: string;
  readonly latencyMs: number | undefined;
  readonly message: string;
  /** Why open documents get no suggestions, by the server's name of each. */
  readonly off: ReadonlyMap<string, string>;
  /** What is learned in the background, or was lately; empty: nothing. */
  readonly learning: string;
}

export const STARTING: Status = {
  state: "loading",
  model: "",
  adapter: "",
  latencyMs: undefined,
  message: "",
  off: new Map(),
  learning: "",
};
export const NOT_SET_UP: Status = { ...STARTING, state: "error", message: l10n.t("not set up") };
export const STOPPED: Status = { ...STARTING, state: "error", message: l10n.t("the language server has stopped") };

/** The parameters of `peft-daemon/status`; undefined when they are none. */
export function readStatus(params: unknown): Status | undefined {
  if (!isRecord(params)) {
    return undefined;
  }
  const state = STATES.find((each) => each === params["state"]);
  const latency = params["latencyMs"];
  return (
    state && {
      state,
      model: text(params["model"]),
      adapter: text(params["adapter"]),
      latencyMs: typeof latency === "number" ? latency : undefined,
      message: text(params["message"]),
      off: offDocuments(params["off"]),
      learning: text(params["learning"]),
    }
  );
}

function offDocuments(value: unknown): ReadonlyMap<string, string> {
  const found = Array.isArray(value) ? value.filter(isRecord) : [];
  return new Map(found.map((each) => [text(each["uri"]), text(each["why"])]));
}

export interface Shown {
  readonly text: string;
  /** One sentence with everything: for screen readers, and the first line of the tooltip. */
  readonly label: string;
  readonly alarming: boolean;
}

const WORDS: Readonly<Record<State, string>> = {
  idle: l10n.t("idle"),
  thinking: l10n.t("thinking"),
  loading: l10n.t("starting"),
  off: l10n.t("off"),
  error: l10n.t("error"),
};
const ICONS: Readonly<Record<State, string>> = {
  idle: "$(sparkle)",
  thinking: "$(loading~spin)",
  loading: "$(sync~spin)",
  off: "$(circle-slash)",
  error: "$(warning)",
};

/** What the status bar shows; `snoozedUntil` is a time of day, `document` the server's name of the active one. */
export function shown(status: Status, snoozedUntil: string | undefined, document?: string): Shown {
  const snoozed = snoozedUntil !== undefined && status.state !== "error";
  const off = status.state === "error" || document === undefined ? undefined : status.off.get(document);
  return {
    text: `${snoozed ? "$(bell-slash)" : off ? ICONS.off : ICONS[status.state]} peft-daemon`,
    label: l10n.t("peft-daemon: {0}", facts(status, snoozed ? snoozedUntil : undefined, off).join(", ")),
    alarming: status.state === "error",
  };
}

function facts(status: Status, snoozedUntil: string | undefined, off: string | undefined): string[] {
  const { state, model, adapter, latencyMs, message, learning } = status;
  return [
    ...(off ? [off] : []),
    state === "error" && message ? l10n.t("error: {0}", message) : WORDS[state],
    ...(snoozedUntil === undefined ? [] : [l10n.t("snoozed until {0}", snoozedUntil)]),
    ...(model ? [model] : []),
    // Which adapter answers is known from the first answer on.
    ...(model && latencyMs !== undefined ? [adapter ? l10n.t("adapter {0}", adapter) : l10n.t("no adapter")] : []),
    ...(latencyMs === undefined ? [] : [`${latencyMs} ms`]),
    ...(state !== "error" && message ? [message] : []),
    ...(state !== "error" && learning ? [learning] : []),
  ];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
