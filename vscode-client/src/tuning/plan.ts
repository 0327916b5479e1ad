/** What a run would take, as `peft-daemon tune --plan --json` tells it, for a dialog. */
import { isRecord } from "../commandLine/answers";
import { duration } from "./view";

/** Passes over the repository's code: the command's own default, and the short alternative. */
export const PASSES = 5;
export const FEW_PASSES = 1;

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

/** The plan's lines for people; `plan` is for PASSES passes. */
export function planText(plan: Plan): string {
  const few = (plan.seconds * FEW_PASSES) / PASSES;
  return [
    `Examples: ${plan.examples} to train on, ${plan.validationExamples} to choose the best weights by`,
    `Steps: ${plan.steps} in ${PASSES} passes`,
    `Time: about ${duration(plan.seconds)}; one pass about ${duration(few)}. Then the adapter is judged.`,
    `Memory: ${gigabytes(plan.peakMemoryBytes)} at the peak, ${gigabytes(plan.availableBytes)} available`,
    "",
    "Suggestions are slower meanwhile. The adapter is used in this repository only if it is better on code that it has not seen.",
  ].join("\n");
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
