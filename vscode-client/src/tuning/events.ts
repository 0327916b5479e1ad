/** What `peft-daemon tune --json` prints: one event per line, and an error at the end when it failed. */
import { type CommandFailed, isRecord, parsed } from "../commandLine/answers";

export type TuneEvent =
  | { readonly type: "loading"; readonly what: string; readonly done: number; readonly of: number }
  | { readonly type: "started"; readonly steps: number; readonly firstStep: number }
  | {
      readonly type: "step";
      readonly step: number;
      readonly steps: number;
      readonly loss: number;
      readonly etaS: number;
    }
  | { readonly type: "evaluated"; readonly step: number; readonly loss: number; readonly best: boolean }
  | { readonly type: "saved"; readonly step: number }
  | { readonly type: "done"; readonly step: number }
  | { readonly type: "verdict"; readonly reason: string; readonly forgets: boolean }
  | Registered;

export interface Registered {
  readonly type: "registered";
  readonly name: string;
  /** Where its card lies. */
  readonly folder: string;
  /** Tasks it serves from now on; empty when it was not put in use. */
  readonly inUse: readonly string[];
  readonly whyNot: string;
}

/** From this loss on general code on, in nats per token, a verdict warns: the gate's own limit. */
const FORGOTTEN = 0.05;

/** A line's event; undefined for other lines, and for events of a later version. */
export function readEvent(line: string): TuneEvent | undefined {
  const value = parsed(line);
  if (!isRecord(value)) {
    return undefined;
  }
  const number = (name: string): number => (typeof value[name] === "number" ? value[name] : 0);
  const text = (name: string): string => (typeof value[name] === "string" ? value[name] : "");
  switch (value["type"]) {
    case "loading":
      return { type: "loading", what: text("what"), done: number("done"), of: number("of") };
    case "started":
      return { type: "started", steps: number("steps"), firstStep: number("first_step") };
    case "step":
      return {
        type: "step",
        step: number("step"),
        steps: number("steps"),
        loss: number("loss"),
        etaS: number("eta_s"),
      };
    case "evaluated":
      return { type: "evaluated", step: number("step"), loss: number("loss"), best: value["best"] === true };
    case "saved":
    case "done":
      return { type: value["type"], step: number("step") };
    case "verdict":
      return {
        type: "verdict",
        reason: text("reason"),
        forgets: nats(value["general_adapter"]) - nats(value["general_served"]) > FORGOTTEN,
      };
    case "registered":
      return {
        type: "registered",
        name: text("name"),
        folder: text("folder"),
        inUse: Array.isArray(value["in_use"]) ? value["in_use"].map(String) : [],
        whyNot: text("why_not"),
      };
    default:
      return undefined;
  }
}

/** How a run ended. */
export type Outcome =
  | {
      readonly kind: "registered";
      readonly registered: Registered;
      readonly verdict: string;
      readonly forgets: boolean;
    }
  | { readonly kind: "interrupted"; readonly step: number }
  | { readonly kind: "failed"; readonly failure: CommandFailed };

function nats(average: unknown): number {
  return isRecord(average) && typeof average["nats"] === "number" ? average["nats"] : 0;
}
