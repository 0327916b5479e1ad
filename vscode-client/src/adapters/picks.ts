/** The adapters as a list to choose from. */
import { l10n } from "vscode";
import { isRecord } from "../commandLine/answers";

export interface Adapter {
  readonly name: string;
  readonly digest: string;
  readonly method: string;
  readonly rank: number;
  readonly task: string;
  readonly sizeBytes: number;
  /** `fill`, `intent`, or `fill@/path/of/repository`. */
  readonly activeFor: readonly string[];
}

/** The adapter's measured figures by name, as its record has them. */
export type Metrics = Readonly<Record<string, number>>;

export interface AdapterPick {
  readonly label: string;
  readonly description: string;
  readonly detail: string;
  /** A name, `base` for none; undefined: what the daemon finds best. */
  readonly adapter: string | undefined;
}

export const BASE = "base";

/** The list of the server's `listAdapters`; rows that are none are left out. */
export function readAdapters(answer: unknown): Adapter[] {
  return (Array.isArray(answer) ? answer : []).flatMap((row: unknown) => {
    if (!isRecord(row) || typeof row["name"] !== "string" || typeof row["digest"] !== "string") {
      return [];
    }
    const active = Array.isArray(row["active_for"]) ? row["active_for"] : [];
    return {
      name: row["name"],
      digest: row["digest"],
      method: String(row["method"]),
      rank: Number(row["rank"]),
      task: String(row["task"]),
      sizeBytes: Number(row["size_bytes"]),
      activeFor: active.map(String),
    };
  });
}

/** The metrics in the answer of `peft-daemon adapters show --json`. */
export function readMetrics(answer: unknown): Metrics {
  const manifest = isRecord(answer) ? answer["manifest"] : undefined;
  const metrics = isRecord(manifest) ? manifest["metrics"] : undefined;
  const numbers = Object.entries(isRecord(metrics) ? metrics : {}).filter(
    (entry): entry is [string, number] => typeof entry[1] === "number",
  );
  return Object.fromEntries(numbers);
}

/** What can be chosen for `folder` (undefined: everywhere), automatic and base first. */
export function adapterPicks(
  adapters: readonly Adapter[],
  folder: string | undefined,
  metrics: ReadonlyMap<string, Metrics>,
): AdapterPick[] {
  const automatic = {
    label: `$(wand) ${l10n.t("automatic")}`,
    description: "",
    detail: l10n.t("No choice of this folder's own: what applies around it, or everywhere, applies in it"),
    adapter: undefined,
  };
  return [
    ...(folder === undefined ? [] : [automatic]),
    {
      label: `$(circle-slash) ${BASE}`,
      description: "",
      detail: l10n.t("The model without an adapter"),
      adapter: BASE,
    },
    ...adapters.map((each) => adapterPick(each, folder, metrics.get(each.digest) ?? {})),
  ];
}

function adapterPick(adapter: Adapter, folder: string | undefined, metrics: Metrics): AdapterPick {
  const uses = usesOf(adapter, folder);
  const method = adapter.rank > 0 ? l10n.t("{0} of rank {1}", adapter.method, adapter.rank) : adapter.method;
  const facts = [method, l10n.t("for {0}", adapter.task), megabytes(adapter.sizeBytes), ...measured(metrics)];
  return {
    label: `${uses.length > 0 ? "$(check)" : "$(package)"} ${adapter.name}`,
    description: uses.join(", "),
    detail: facts.join(" · "),
    adapter: adapter.name,
  };
}

function usesOf(adapter: Adapter, folder: string | undefined): string[] {
  const here = folder === undefined ? [] : tasksAt(adapter, (place) => place === folder);
  const everywhere = tasksAt(adapter, (place) => place === undefined);
  return [
    ...(here.length > 0 ? [l10n.t("in use here for {0}", here.join(l10n.t(" and ")))] : []),
    ...(everywhere.length > 0 ? [l10n.t("in use by default for {0}", everywhere.join(l10n.t(" and ")))] : []),
  ];
}

function tasksAt(adapter: Adapter, fits: (place: string | undefined) => boolean): string[] {
  return adapter.activeFor.flatMap((use) => {
    const at = use.indexOf("@");
    const [task, place] = at < 0 ? [use, undefined] : [use.slice(0, at), use.slice(at + 1)];
    return fits(place) ? [task] : [];
  });
}

function measured(metrics: Metrics): string[] {
  const { gate_exact_served: served, gate_exact: tuned, gate_holes: holes, validation_loss: loss } = metrics;
  if (served !== undefined && tuned !== undefined && holes !== undefined) {
    return [l10n.t("exactly right {0} → {1} of {2} held-out holes", percent(served), percent(tuned), holes)];
  }
  return loss === undefined ? [] : [l10n.t("validation loss {0}", loss.toFixed(3))];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 10e6 ? 1 : 0)} MB`;
}
