/** Models, programs and servers that can answer here, as one list to choose from. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";
import type { DaemonSetting } from "../daemon/settings";
import { type ModelOffer, type ModelPlan, readModels, size, speedFacts } from "../setup/models";

/** What a choice does. */
export type Choice =
  | { readonly kind: "model"; readonly id: string; readonly installed: boolean }
  | { readonly kind: "found"; readonly source: string; readonly name: string }
  | { readonly kind: "program"; readonly program: string; readonly label: string }
  | { readonly kind: "server" }
  | { readonly kind: "local" };

export interface ModelMenuItem {
  readonly label: string;
  readonly description?: string;
  readonly detail?: string;
  /** Undefined: a heading. */
  readonly choice: Choice | undefined;
}

/** Answers of the command line, as they come in; undefined: not yet. */
export interface Known {
  /** `models list`. */
  readonly models?: unknown;
  /** `models found`. */
  readonly found?: unknown;
  /** `engine list`. */
  readonly programs?: unknown;
  readonly plan?: ModelPlan | undefined;
  readonly settings: readonly DaemonSetting[];
}

export function modelMenu(known: Known): ModelMenuItem[] {
  const found = foundItems(known.found);
  const programs = programItems(known.programs, known.settings);
  return [
    heading(l10n.t("models")),
    ...modelItems(known.models, known.plan),
    ...(found.length > 0 ? [heading(l10n.t("models that other programs have")), ...found] : []),
    ...(programs.length > 1 ? [heading(l10n.t("what runs the model")), ...programs] : []),
    heading(l10n.t("a server")),
    ...serverItems(known.settings),
  ];
}

function heading(label: string): ModelMenuItem {
  return { label, choice: undefined };
}

/** The machine's proposal first, then what is here, then the rest by size. */
function modelItems(models: unknown, plan: ModelPlan | undefined): ModelMenuItem[] {
  const predicted = new Map(plan?.models.map((each) => [each.id, each]));
  const offers = readModels(models).map((each): ModelOffer => {
    const measured = predicted.get(each.id);
    return measured ? { ...each, ...measured, inUse: each.inUse, installed: each.installed } : each;
  });
  const rank = (each: ModelOffer): number => (each.recommended ? 0 : each.inUse ? 1 : each.installed ? 2 : 3);
  return [...offers]
    .sort((a, b) => rank(a) - rank(b) || a.bytes - b.bytes)
    .map((each) => ({
      label: `${each.inUse ? "$(check)" : each.recommended ? "$(star-full)" : "$(package)"} ${each.id}`,
      description: [
        ...(each.recommended ? [l10n.t("recommended for this machine")] : []),
        each.inUse ? l10n.t("in use") : each.installed ? l10n.t("installed") : l10n.t("{0} to fetch", size(each.bytes)),
      ].join(", "),
      detail: [size(each.bytes), ...speedFacts(each)].join(" · "),
      choice: { kind: "model", id: each.id, installed: each.installed },
    }));
}

/** Those of `models found` that were not added yet. */
function foundItems(answer: unknown): ModelMenuItem[] {
  const rows = (Array.isArray(answer) ? answer : []).filter(isRecord);
  return rows
    .filter((row) => typeof row["model"] !== "string")
    .map((row) => {
      const [program, name, path] = [row["program"], row["name"], row["path"]].map(String);
      return {
        label: `$(archive) ${l10n.t("Use {0} of {1}", name ?? "", program ?? "")}`,
        description: size(Number(row["bytes"])),
        detail: l10n.t("Used where it lies: {0}", path ?? ""),
        choice: {
          kind: "found" as const,
          source: program === "Ollama" ? `ollama:${name ?? ""}` : (path ?? ""),
          name: name ?? "",
        },
      };
    });
}

/** The programs of `engine list`; the first lets the measurements decide. */
function programItems(answer: unknown, settings: readonly DaemonSetting[]): ModelMenuItem[] {
  const programs = isRecord(answer) && Array.isArray(answer["programs"]) ? answer["programs"].filter(isRecord) : [];
  const chosen = settings.find(({ name }) => name === "llama_server")?.value ?? "auto";
  const mark = (program: string): string => (chosen === program ? "$(check)" : "$(server-process)");
  const automatic: ModelMenuItem = {
    label: `${mark("auto")} ${l10n.t("the fastest llama.cpp")}`,
    detail: isRecord(answer) && typeof answer["why"] === "string" ? answer["why"] : "",
    choice: { kind: "program", program: "auto", label: l10n.t("the fastest llama.cpp") },
  };
  const named = programs.map((row): ModelMenuItem => {
    const program = typeof row["path"] === "string" ? row["path"] : "wheel";
    const label = program === "wheel" ? l10n.t("the package's own llama.cpp") : program;
    const [reading, writing] = [row["reading"], row["writing"]];
    const speed =
      typeof reading === "number" && typeof writing === "number"
        ? l10n.t("measured: reads {0}, writes {1} tokens/s", reading.toFixed(0), writing.toFixed(0))
        : l10n.t("not measured");
    return {
      label: `${mark(program)} ${label}`,
      description: row["in_use"] === true ? l10n.t("in use") : "",
      detail: [String(row["version"]), speed].join(" · "),
      choice: { kind: "program", program, label },
    };
  });
  return [automatic, ...named];
}

function serverItems(settings: readonly DaemonSetting[]): ModelMenuItem[] {
  const value = (name: string): unknown => settings.find((each) => each.name === name)?.value;
  const connect: ModelMenuItem = {
    label: `$(remote) ${l10n.t("Connect to a server…")}`,
    detail: l10n.t("llama-server, vLLM, SGLang, Ollama or any with /v1/completions; it gets your code"),
    choice: { kind: "server" },
  };
  if (value("engine") !== "upstream") {
    return [connect];
  }
  const local: ModelMenuItem = {
    label: `$(debug-disconnect) ${l10n.t("Stop using the server")}`,
    description: String(value("upstream_url")),
    detail: l10n.t("The model on this machine answers"),
    choice: { kind: "local" },
  };
  return [local, connect];
}
