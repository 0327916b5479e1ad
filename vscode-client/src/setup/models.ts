/** The models that fit this machine, as a list to choose from. */
import { l10n } from "vscode";
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
  readonly recommended: string;
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
  const models = readModels(answer["models"]);
  const card = typeof gpu === "string" && gpu !== "" ? gpu : l10n.t("no graphics card");
  return {
    machine: l10n.t(
      "{0}, {1} threads, {2} of memory, {3}",
      String(processor),
      String(threads),
      size(Number(memory)),
      card,
    ),
    recommended: String(answer["recommended"]),
    reason: String(answer["reason"]),
    models,
  };
}

/** Models in the rows of `setup --plan --json` or `models list --json`, which predicts nothing. */
export function readModels(rows: unknown): ModelOffer[] {
  return (Array.isArray(rows) ? rows : []).filter(isRecord).map((row) => ({
    id: String(row["id"]),
    bytes: Number(row["bytes"]),
    memoryBytes: Number(row["memory_bytes"]),
    licence: String(row["licence"]),
    fillScore: numberOrNone(row["fill_score"]),
    installed: row["installed"] === true,
    inUse: row["in_use"] === true || row["chosen"] === true,
    recommended: row["recommended"] === true,
    firstSuggestionS: numberOrNone(row["first_suggestion_s"]),
    writing: numberOrNone(row["writing"]),
  }));
}

/** What can be chosen, the recommended one first, then by size. */
export function modelPicks({ models }: ModelPlan): ModelPick[] {
  const first = models.filter(({ recommended }) => recommended);
  const others = models.filter(({ recommended }) => !recommended);
  return [...first, ...others].map((model) => ({
    label: `$(${model.recommended ? "star-full" : "package"}) ${model.id}`,
    description: [
      ...(model.recommended ? [l10n.t("recommended")] : []),
      ...(model.inUse
        ? [l10n.t("in use")]
        : model.installed
          ? [l10n.t("installed")]
          : [l10n.t("{0} to fetch", size(model.bytes))]),
    ].join(", "),
    detail: speedFacts(model).join(" · "),
    model,
  }));
}

/** `491 MB`, `1.6 GB`. */
export function size(bytes: number): string {
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** Predicted speed, memory, and what is published of a model. */
export function speedFacts(model: ModelOffer): string[] {
  const { firstSuggestionS, writing, fillScore } = model;
  return [
    ...(firstSuggestionS === undefined ? [] : [l10n.t("first suggestion after {0} s", firstSuggestionS.toFixed(1))]),
    ...(writing === undefined ? [] : [l10n.t("writes {0} tokens/s", writing.toFixed(writing < 10 ? 1 : 0))]),
    l10n.t("{0} of memory", size(model.memoryBytes)),
    ...(fillScore === undefined ? [] : [l10n.t("fills {0} % of holes (published)", (100 * fillScore).toFixed(0))]),
    model.licence,
  ];
}

function numberOrNone(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
