/** What the menu behind the status bar item offers, most likely first. */
import { l10n } from "vscode";
import { remedies } from "../remedies";
import type { Status } from "../status/status";

export interface MenuItem {
  readonly label: string;
  readonly description?: string;
  readonly command: string;
  readonly args?: readonly unknown[];
}

export interface Surroundings {
  readonly status: Status;
  readonly setUp: boolean;
  readonly snoozed: boolean;
  /** Language of the active editor, and whether it gets suggestions; undefined without one. */
  readonly language: { readonly id: string; readonly on: boolean } | undefined;
  /** The active folder; undefined without one. */
  readonly folder: { readonly name: string; readonly on: boolean } | undefined;
  readonly trusted: boolean;
}

export function menuItems({ status, setUp, snoozed, language, folder, trusted }: Surroundings): MenuItem[] {
  if (!setUp) {
    return [
      { label: `$(rocket) ${l10n.t("Set up")}`, command: "peftDaemon.setUp" },
      { label: `$(output) ${l10n.t("Show logs")}`, command: "peftDaemon.showLogs" },
    ];
  }
  const broken = status.state === "error";
  const mending: MenuItem[] = [
    { label: `$(debug-restart) ${l10n.t("Restart the daemon")}`, command: "peftDaemon.restart" },
    { label: `$(output) ${l10n.t("Show logs")}`, command: "peftDaemon.showLogs" },
    { label: `$(pulse) ${l10n.t("Check the installation")}`, command: "peftDaemon.doctor" },
    { label: `$(rocket) ${l10n.t("Set up")}`, command: "peftDaemon.setUp" },
  ];
  // What the message tells to do comes first; the rest only may help.
  const first = broken ? remedies(status.message) : [];
  const told: MenuItem[] = first.map(({ label, ...rest }) => ({ label: `$(tools) ${label}`, ...rest }));
  const rest = mending.filter(({ command }) => !first.some((each) => each.command === command));
  const pausing: MenuItem[] = [
    snoozed
      ? { label: `$(bell) ${l10n.t("Wake suggestions")}`, command: "peftDaemon.snooze" }
      : { label: `$(bell-slash) ${l10n.t("Snooze for 10 minutes")}`, command: "peftDaemon.snooze" },
    ...(language ? [toggle(`for ${language.id}`, language.on, "peftDaemon.toggleLanguage")] : []),
    ...(folder ? [toggle(`in ${folder.name}`, folder.on, "peftDaemon.toggleFolder")] : []),
  ];
  const using: MenuItem[] = [
    { label: `$(question) ${l10n.t("Why is there a suggestion, or none?")}`, command: "peftDaemon.why" },
    { label: `$(sparkle) ${l10n.t("Generate code from comment or selection")}`, command: "peftDaemon.generate" },
    {
      label: `$(server-process) ${l10n.t("Choose model and engine")}`,
      description: status.model,
      command: "peftDaemon.chooseModel",
    },
    {
      label: `$(package) ${l10n.t("Switch adapter")}`,
      description: status.adapter || l10n.t("none"),
      command: "peftDaemon.switchAdapter",
    },
    ...(folder && trusted
      ? [{ label: `$(mortar-board) ${l10n.t("Tune on this repository")}`, command: "peftDaemon.tune" }]
      : []),
    { label: `$(graph) ${l10n.t("Open benchmark report")}`, command: "peftDaemon.openReport" },
    { label: `$(book) ${l10n.t("Choose what is kept of suggestions")}`, command: "peftDaemon.feedback" },
    { label: `$(settings-gear) ${l10n.t("Change settings of the daemon")}`, command: "peftDaemon.daemonSettings" },
  ];
  return broken ? [...told, ...rest, ...pausing, ...using] : [...pausing, ...using, ...mending];
}

function toggle(where: string, on: boolean, command: string): MenuItem {
  return {
    label: `${on ? `$(circle-slash) ${l10n.t("Turn off")}` : `$(circle-outline) ${l10n.t("Turn on")}`} ${where}`,
    command,
  };
}
