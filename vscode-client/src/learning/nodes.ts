/** The view of a window's repositories as a tree: what serves each, what it gained, what is learned, and the adapters. */
import { basename } from "node:path";
import { l10n } from "vscode";
import { type Adapter, BASE } from "../adapters/picks";
import type { Acceptance, Learning, LogEntry, Repository, Serving } from "./answers";

export interface Node {
  /** Stays the same when the view is made anew, so that what is open stays open. */
  readonly id: string;
  readonly label: string;
  readonly description: string;
  readonly tooltip: string;
  readonly icon: string;
  /** Says which buttons it has. */
  readonly kind: string;
  readonly children: readonly Node[];
  readonly open: boolean;
  /** What its buttons are about. */
  readonly target?: { readonly folder: string; readonly adapter?: string };
}

export interface FolderFacts {
  readonly folder: string;
  readonly learning: Learning | undefined;
  readonly log: readonly LogEntry[];
}

export interface Facts {
  readonly folders: readonly FolderFacts[];
  readonly adapters: readonly Adapter[];
  readonly kept: number | undefined;
}

/** The kind of a node that says why nothing can be shown; it opens what finds out more. */
export const FAILURE = "failure";
const MAX_LOG_ENTRIES = 20;

export function nodes(facts: Facts): Node[] {
  const found = facts.folders.flatMap(({ folder, learning, log }) =>
    learning?.here ? [repositoryNode(folder, learning, learning.here, log)] : [],
  );
  const repositories = [...new Map(found.map((node) => [node.id, node])).values()];
  return [...repositories, ...adapterNodes(facts), ...keptNodes(facts.kept)];
}

export function failureNode(message: string): Node {
  return leaf("failure", "warning", message, "", { kind: FAILURE });
}

function leaf(id: string, icon: string, label: string, description: string, more: Partial<Node> = {}): Node {
  const tooltip = description === "" ? label : `${label}: ${description}`;
  return { id, icon, label, description, tooltip, kind: "fact", children: [], open: false, ...more };
}

function repositoryNode(folder: string, learning: Learning, here: Repository, log: readonly LogEntry[]): Node {
  const target = { folder };
  const state = !isOn(learning, here) ? "off" : learning.paused ? "paused" : "on";
  return {
    ...leaf(here.root, "repo", basename(here.root), learningWords(here)),
    kind: `repository.${state}`,
    open: true,
    target,
    children: [
      ...(here.serving ? servingNodes(here, here.serving, target) : []),
      learningNode(learning, here, state, target),
      ...(here.last === "" ? [] : [leaf(`${here.root}/last`, "history", l10n.t("Last run"), lastWords(here))]),
      logNode(here, log),
    ],
  };
}

function isOn(learning: Learning, here: Repository): boolean {
  return here.choice === "on" || (learning.setting === "on" && here.choice !== "off");
}

function learningWords({ line }: Repository): string {
  return line.replace(/^learning /, "");
}

function servingNodes(here: Repository, serving: Serving, target: { folder: string }): Node[] {
  const { name, since, gain, acceptance, before } = serving;
  const served = leaf(
    `${here.root}/serving`,
    "package",
    l10n.t("Serves"),
    name === ""
      ? l10n.t("the model without an adapter")
      : since === undefined
        ? name
        : l10n.t("{0}, since {1}", name, day(since)),
    { kind: serving.learned ? "serving.learned" : "serving", target },
  );
  const gained =
    gain &&
    leaf(
      `${here.root}/gain`,
      "graph-line",
      l10n.t("Gain"),
      l10n.t("{0} of {1} places right, {2} before", percent(gain.exact), gain.places, percent(gain.before)),
      {
        tooltip: l10n.t(
          "Places in your newest code that it had not seen, filled exactly right. The difference is {0} points; at 95 % it lies between {1} and {2}.",
          points(gain.exact - gain.before),
          points(gain.low),
          points(gain.high),
        ),
      },
    );
  return [served, ...(gained ? [gained] : []), ...acceptedNodes(here, acceptance, before)];
}

function acceptedNodes(here: Repository, now: Acceptance, before: Acceptance | undefined): Node[] {
  if (now.decided === 0) {
    return [];
  }
  const words = l10n.t("{0} of {1} suggestions", percent(now.accepted / now.decided), now.decided);
  const earlier =
    before && before.decided > 0
      ? [l10n.t("{0} of {1} before", percent(before.accepted / before.decided), before.decided)]
      : [];
  return [leaf(`${here.root}/accepted`, "thumbsup", l10n.t("Accepted"), [words, ...earlier].join(", "))];
}

function learningNode(learning: Learning, here: Repository, state: string, target: { folder: string }): Node {
  const minutes = l10n.t("{0} of {1} minutes used today", learning.minutesToday, learning.minutesADay);
  const words =
    learning.missing.length > 0
      ? l10n.t("needs packages that are not installed")
      : state === "paused"
        ? l10n.t("paused {0}", learning.paused)
        : `${learningWords(here)} · ${minutes}`;
  const icon = here.activity === "running" ? "sync~spin" : state === "on" ? "mortar-board" : "circle-slash";
  const kind = here.activity === "running" ? "learning.running" : `learning.${state}`;
  return leaf(`${here.root}/learning`, icon, l10n.t("Learning"), words, { kind, target });
}

function lastWords({ last, lastAt }: Repository): string {
  return lastAt === undefined ? last : `${day(lastAt)}: ${last}`;
}

function logNode(here: Repository, log: readonly LogEntry[]): Node {
  const shown = log
    .slice(0, MAX_LOG_ENTRIES)
    .map((entry, index) => leaf(`${here.root}/log/${index}`, "circle-small", day(entry.time), entry.text));
  const empty = leaf(`${here.root}/log/none`, "info", l10n.t("nothing was done yet"), "");
  return { ...leaf(`${here.root}/log`, "output", l10n.t("Log"), ""), children: shown.length > 0 ? shown : [empty] };
}

function adapterNodes({ adapters, folders }: Facts): Node[] {
  const folder = folders[0]?.folder ?? "";
  const children = adapters.map((each) =>
    leaf(`adapter/${each.name}`, "package", each.name, usesWords(each), {
      kind: "adapter",
      target: { folder, adapter: each.name },
      tooltip: `${each.name}: ${each.method}, ${each.task}${each.activeFor.length > 0 ? `\n${each.activeFor.join("\n")}` : ""}`,
    }),
  );
  if (children.length === 0) {
    return [];
  }
  const none = leaf("adapter/base", "circle-slash", BASE, l10n.t("the model without an adapter"), {
    kind: "adapter.base",
    target: { folder, adapter: BASE },
  });
  return [{ ...leaf("adapters", "library", l10n.t("Adapters"), ""), open: true, children: [...children, none] }];
}

function usesWords({ activeFor, task }: Adapter): string {
  if (activeFor.length === 0) {
    return l10n.t("for {0}, not in use", task);
  }
  const places = activeFor.map((use) => {
    const at = use.indexOf("@");
    return at < 0 ? l10n.t("everywhere") : basename(use.slice(at + 1));
  });
  return l10n.t("in use: {0}", [...new Set(places)].join(", "));
}

function keptNodes(kept: number | undefined): Node[] {
  const words = kept === undefined ? "" : l10n.t("{0} of 100 characters shown", kept.toFixed(1));
  return kept === undefined ? [] : [leaf("kept", "pass", l10n.t("Accepted and still there"), words, { kind: "kept" })];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

function points(difference: number): string {
  return `${difference < 0 ? "−" : "+"}${Math.abs(100 * difference).toFixed(0)}`;
}

function day(time: number): string {
  return new Date(time).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
}
