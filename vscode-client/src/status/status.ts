/** What the language server tells of itself, and how the status bar says it. */
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
}

export const STARTING: Status = { state: "loading", model: "", adapter: "", latencyMs: undefined, message: "" };
export const NOT_SET_UP: Status = { ...STARTING, state: "error", message: "not set up" };
export const STOPPED: Status = { ...STARTING, state: "error", message: "the language server has stopped" };

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
    }
  );
}

export interface Shown {
  readonly text: string;
  /** One sentence with everything: for screen readers, and the first line of the tooltip. */
  readonly label: string;
  readonly alarming: boolean;
}

const ICONS: Readonly<Record<State, string>> = {
  idle: "$(sparkle)",
  thinking: "$(loading~spin)",
  loading: "$(sync~spin)",
  off: "$(circle-slash)",
  error: "$(warning)",
};

/** What the status bar shows; `snoozedUntil` is a time of day, or undefined. */
export function shown(status: Status, snoozedUntil: string | undefined): Shown {
  const snoozed = snoozedUntil !== undefined && status.state !== "error";
  return {
    text: `${snoozed ? "$(bell-slash)" : ICONS[status.state]} peft-daemon`,
    label: `peft-daemon: ${facts(status, snoozed ? snoozedUntil : undefined).join(", ")}`,
    alarming: status.state === "error",
  };
}

function facts(status: Status, snoozedUntil: string | undefined): string[] {
  const { state, model, adapter, latencyMs, message } = status;
  return [
    state === "error" && message ? `error: ${message}` : state,
    ...(snoozedUntil === undefined ? [] : [`snoozed until ${snoozedUntil}`]),
    ...(model ? [model, adapter ? `adapter ${adapter}` : "no adapter"] : []),
    ...(latencyMs === undefined ? [] : [`${latencyMs} ms`]),
    ...(state !== "error" && message ? [message] : []),
  ];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
