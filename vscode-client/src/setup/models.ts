/** The models that fit this machine, as a list to choose from. */
import { isRecord } from "../commandLine/answers";

export interface ModelOffer {
  readonly id: string;
  readonly bytes: number;
  readonly memoryBytes: number;
  readonly licence: string;
  /** Published share of holes that it fills exactly. */
  readonly fillScore: number | undefined;
  readonly installed: boolean;
  readonly inUse: boolean;
  readonly recommended: boolean;
  /** Predicted for this machine; undefined: it could not be measured. */
  readonly firstSuggestionS: number | undefined;
  readonly writing: number | undefined;
}

export interface ModelPlan {
  readonly machine: string;
  readonly reason: string;
  readonly models: readonly ModelOffer[];
}

export interface ModelPick {
  readonly label: string;
  readonly description: string;
  readonly detail: string;
  readonly model: ModelOffer;
}

/** The answer of `peft-daemon setup --plan --json`; undefined: it is another answer. */
export function readPlan(answer: unknown): ModelPlan | undefined {
  if (!isRecord(answer) || !isRecord(answer["machine"]) || !Array.isArray(answer["models"])) {
    return undefined;
  }
  const { processor, threads, memory_bytes: memory, gpu } = answer["machine"];
  const models = answer["models"].filter(isRecord).map((row) => ({
    id: String(row["id"]),
    bytes: Number(row["bytes"]),
    memoryBytes: Number(row["memory_bytes"]),
    licence: String(row["licence"]),
    fillScore: numberOrNone(row["fill_score"]),
    installed: row["installed"] === true,
    inUse: row["in_use"] === true,
    recommended: row["recommended"] === true,
    firstSuggestionS: numberOrNone(row["first_suggestion_s"]),
    writing: numberOrNone(row["writing"]),
  }));
  const card = typeof gpu === "string" && gpu !== "" ? gpu : "no graphics card";
  return {
    machine: `${String(processor)}, ${String(threads)} threads, ${size(Number(memory))} of memory, ${card}`,
    reason: String(answer["reason"]),
    models,
  };
}

/** What can be chosen, the recommended one first, then by size. */
export function modelPicks({ models }: ModelPlan): ModelPick[] {
  const first = models.filter(({ recommended }) => recommended);
  const others = models.filter(({ recommended }) => !recommended);
  return [...first, ...others].map((model) => ({
    label: `$(${model.recommended ? "star-full" : "package"}) ${model.id}`,
    description: [
      ...(model.recommended ? ["recommended"] : []),
      ...(model.inUse ? ["in use"] : model.installed ? ["installed"] : [`${size(model.bytes)} to fetch`]),
    ].join(", "),
    detail: facts(model).join(" · "),
    model,
  }));
}

/** `491 MB`, `1.6 GB`. */
export function size(bytes: number): string {
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

function facts(model: ModelOffer): string[] {
  const { firstSuggestionS, writing, fillScore } = model;
  return [
    ...(firstSuggestionS === undefined ? [] : [`first suggestion after ${firstSuggestionS.toFixed(1)} s`]),
    ...(writing === undefined ? [] : [`writes ${writing.toFixed(writing < 10 ? 1 : 0)} tokens/s`]),
    `${size(model.memoryBytes)} of memory`,
    ...(fillScore === undefined ? [] : [`fills ${(100 * fillScore).toFixed(0)} % of holes (published)`]),
    model.licence,
  ];
}

function numberOrNone(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
