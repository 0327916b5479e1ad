/** What a run would take, as `peft-daemon tune --plan --json` tells it, for a dialog. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";
import { duration } from "./view";

/** The alternative to the command's own time for learning and judging. */
export const SHORT_TIME = "10m";

export interface Plan {
  readonly examples: number;
  readonly validationExamples: number;
  readonly steps: number;
  readonly peakMemoryBytes: number;
  readonly availableBytes: number;
  readonly seconds: number;
}

/** The plan in a document; undefined when it is none. */
export function readPlan(document: unknown): Plan | undefined {
  if (!isRecord(document)) {
    return undefined;
  }
  const names = ["examples", "validation_examples", "steps", "peak_memory_bytes", "available_bytes", "seconds"];
  const numbers = names.map((name) => document[name]).filter((value) => typeof value === "number");
  const [examples, validationExamples, steps, peakMemoryBytes, availableBytes, seconds] = numbers;
  return seconds === undefined ||
    examples === undefined ||
    validationExamples === undefined ||
    steps === undefined ||
    peakMemoryBytes === undefined ||
    availableBytes === undefined
    ? undefined
    : { examples, validationExamples, steps, peakMemoryBytes, availableBytes, seconds };
}

/** The plan's lines for people. */
export function planText(plan: Plan): string {
  return [
    l10n.t("Examples: {0} to learn, in {1} steps", plan.examples, plan.steps),
    l10n.t("Time: about {0}. Then the adapter is judged on your newest code.", duration(plan.seconds)),
    l10n.t("Memory: {0} at the peak, {1} available", gigabytes(plan.peakMemoryBytes), gigabytes(plan.availableBytes)),
    "",
    l10n.t(
      "Suggestions are slower meanwhile. The adapter is used in this repository only if it is better on code that it has not seen.",
    ),
  ].join("\n");
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
