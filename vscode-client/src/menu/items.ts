/** What the menu behind the status bar item offers, most likely first. */
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
      { label: "$(rocket) Set up", command: "peftDaemon.setUp" },
      { label: "$(output) Show logs", command: "peftDaemon.showLogs" },
    ];
  }
  const broken = status.state === "error";
  const mending: MenuItem[] = [
    { label: "$(debug-restart) Restart the daemon", command: "peftDaemon.restart" },
    { label: "$(output) Show logs", command: "peftDaemon.showLogs" },
    { label: "$(pulse) Check the installation", command: "peftDaemon.doctor" },
    { label: "$(rocket) Set up", command: "peftDaemon.setUp" },
  ];
  // What the message tells to do comes first; the rest only may help.
  const first = broken ? remedies(status.message) : [];
  const told: MenuItem[] = first.map(({ label, ...rest }) => ({ label: `$(tools) ${label}`, ...rest }));
  const rest = mending.filter(({ command }) => !first.some((each) => each.command === command));
  const pausing: MenuItem[] = [
    snoozed
      ? { label: "$(bell) Wake suggestions", command: "peftDaemon.snooze" }
      : { label: "$(bell-slash) Snooze for 10 minutes", command: "peftDaemon.snooze" },
    ...(language ? [toggle(`for ${language.id}`, language.on, "peftDaemon.toggleLanguage")] : []),
    ...(folder ? [toggle(`in ${folder.name}`, folder.on, "peftDaemon.toggleFolder")] : []),
  ];
  const using: MenuItem[] = [
    { label: "$(question) Why is there a suggestion, or none?", command: "peftDaemon.why" },
    { label: "$(sparkle) Generate code from comment or selection", command: "peftDaemon.generate" },
    { label: "$(package) Switch adapter", description: status.adapter || "none", command: "peftDaemon.switchAdapter" },
    ...(folder && trusted ? [{ label: "$(mortar-board) Tune on this repository", command: "peftDaemon.tune" }] : []),
    { label: "$(graph) Open benchmark report", command: "peftDaemon.openReport" },
    { label: "$(book) Choose what is kept of suggestions", command: "peftDaemon.feedback" },
  ];
  return broken ? [...told, ...rest, ...pausing, ...using] : [...pausing, ...using, ...mending];
}

function toggle(where: string, on: boolean, command: string): MenuItem {
  return { label: `${on ? "$(circle-slash) Turn off" : "$(circle-outline) Turn on"} ${where}`, command };
}
