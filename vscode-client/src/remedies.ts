/** Which commands of the extension help with what a message says, so that it can have buttons for them. */
import { l10n } from "vscode";

export interface Remedy {
  readonly label: string;
  readonly command: string;
  readonly args?: readonly unknown[];
}

type Rule = readonly [RegExp, string, string];

const RULES: readonly Rule[] = [
  [/peft-daemon models pull/, l10n.t("Fetch the Model"), "peftDaemon.setUp"],
  [/peft-daemon setup|peft-daemon: Set Up|not set up/, l10n.t("Set Up"), "peftDaemon.setUp"],
  [/trusted workspace/, l10n.t("Manage Trust"), "workbench.trust.manage"],
  [/peft-daemon adapters|peft-daemon: Switch Adapter/, l10n.t("Switch Adapter"), "peftDaemon.switchAdapter"],
  [/peft-daemon (?:start|stop|restart)\b|peft-daemon: Restart/, l10n.t("Restart"), "peftDaemon.restart"],
  [/peft-daemon config/, l10n.t("Change the Setting"), "peftDaemon.daemonSettings"],
  [/peft-daemon learn (?:log|status)/, l10n.t("Show the Log"), "peftDaemon.learnLog"],
  [/peft-daemon doctor/, l10n.t("Check the Installation"), "peftDaemon.doctor"],
];
const SETTING = /'((?:peft-daemon|python)\.\w+)'/;

/** A setting of the daemon, by its name. */
const OF_DAEMON = /\b(?:set|correct|raise|lower|change) `([a-z]+(?:_[a-z]+)*)`/i;

/** What helps, in the order in which the message tells it; empty where nothing is known. */
export function remedies(message: string): Remedy[] {
  const found: [number, Remedy][] = RULES.map(([told, label, command]) => [message.search(told), { label, command }]);
  const setting = SETTING.exec(message);
  if (setting) {
    const remedy = { label: l10n.t("Open the Setting"), command: "workbench.action.openSettings", args: [setting[1]] };
    found.push([setting.index, remedy]);
  }
  const ofDaemon = OF_DAEMON.exec(message);
  if (ofDaemon) {
    const remedy = { label: l10n.t("Change the Setting"), command: "peftDaemon.daemonSettings", args: [ofDaemon[1]] };
    found.push([ofDaemon.index, remedy]);
  }
  const told = found
    .filter(([at]) => at >= 0)
    .sort(([a], [b]) => a - b)
    .map(([, remedy]) => remedy);
  return told.filter(({ command }, index) => told.findIndex((each) => each.command === command) === index);
}
