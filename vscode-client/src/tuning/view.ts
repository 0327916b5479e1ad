/** How far a run is, from its events; and how that is said. */
import { l10n } from "vscode";
import type { TuneEvent } from "./events";

export interface View {
  /** Training has begun: from then on an interrupted run can go on later. */
  readonly started: boolean;
  readonly step: number;
  /** Of training, then of judging; 0 to 100, never falling. */
  readonly percent: number;
  readonly message: string;
  readonly verdict: string;
  readonly forgets: boolean;
}

export const BEGINNING: View = {
  started: false,
  step: 0,
  percent: 0,
  message: "starting",
  verdict: "",
  forgets: false,
};

/** Training's part of the bar; judging has the rest. */
const TRAINING_PERCENT = 90;

/** The view after an event. */
export function advanced(view: View, event: TuneEvent): View {
  switch (event.type) {
    case "loading": {
      const judging = view.percent >= TRAINING_PERCENT && event.of > 0;
      const percent = judging ? TRAINING_PERCENT + share(event.done, event.of, 100 - TRAINING_PERCENT) : view.percent;
      const count = event.of > 0 ? ` ${event.done} of ${event.of}` : "";
      return { ...further(view, percent), message: `${judging ? `${l10n.t("judging")}: ` : ""}${event.what}${count}` };
    }
    case "started":
      return {
        ...further(view, share(event.firstStep, event.steps, TRAINING_PERCENT)),
        started: true,
        step: event.firstStep,
        message:
          event.firstStep > 0
            ? l10n.t("going on after step {0} of {1}", event.firstStep, event.steps)
            : l10n.t("first step"),
      };
    case "step":
      return {
        ...further(view, share(event.step, event.steps, TRAINING_PERCENT)),
        step: event.step,
        message: l10n.t(
          "step {0} of {1}, loss {2}, {3}",
          event.step,
          event.steps,
          event.loss.toFixed(3),
          left(event.etaS),
        ),
      };
    case "done":
      return { ...further(view, TRAINING_PERCENT), step: event.step, message: l10n.t("judging the adapter") };
    case "verdict":
      return { ...further(view, 100), message: event.reason, verdict: event.reason, forgets: event.forgets };
    case "registered":
      return { ...further(view, 100), message: "registered" };
    case "evaluated":
    case "saved":
      return view;
  }
}

/** Remaining time in words. */
export function left(seconds: number): string {
  return seconds < 60 ? l10n.t("less than a minute left") : l10n.t("{0} left", duration(seconds));
}

/** `45 s`, `12 min` or `1 h 5 min`. */
export function duration(seconds: number): string {
  if (seconds < 60) {
    return `${Math.round(seconds)} s`;
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function further(view: View, percent: number): View {
  return { ...view, percent: Math.max(view.percent, percent) };
}

function share(done: number, of: number, percent: number): number {
  return of > 0 ? (percent * Math.min(done, of)) / of : 0;
}
