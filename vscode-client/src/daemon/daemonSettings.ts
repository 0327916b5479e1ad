/** Changes settings of the daemon through the command line, so that its file is the only place that has them. */
import { l10n } from "vscode";
import * as vscode from "vscode";
import { ask, required } from "../commandLine/peftDaemon";
import { showInformation } from "../interaction";
import type { SetUp } from "../setup/setUp";
import {
  choicesOf,
  type DaemonSetting,
  objection,
  readDaemonSettings,
  settingPicks,
  shownValue,
  type Value,
  writtenValue,
} from "./settings";

/** New values by name; undefined: the default. */
export type Changes = Readonly<Record<string, Value | undefined>>;

export class DaemonSettings {
  readonly #own: SetUp;

  constructor(own: SetUp) {
    this.#own = own;
  }

  async read(): Promise<DaemonSetting[]> {
    return readDaemonSettings(await ask(required(await this.#own.find()), ["config"]));
  }

  /** Write values into the user's file; returns what it had before. */
  async write(changes: Changes): Promise<Changes> {
    const command = required(await this.#own.find());
    const before = await this.written(Object.keys(changes));
    for (const [name, value] of Object.entries(changes)) {
      await ask(command, value === undefined ? ["config", "unset", name] : ["config", "set", name, String(value)]);
    }
    return before;
  }

  /** What the user's file has of these settings. */
  async written(names: readonly string[]): Promise<Changes> {
    const rows = (await this.read()).filter(({ name }) => names.includes(name));
    return Object.fromEntries(rows.map((row) => [row.name, writtenValue(row)]));
  }

  /** Have the daemon take over what is written, tell what changed, and offer to go back to `before`. */
  async takeOver(what: string, before: Changes): Promise<void> {
    await this.#own.start();
    const undo = l10n.t("Undo");
    if ((await showInformation(what, undo)) === undo) {
      await this.write(before);
      await this.#own.start();
      await showInformation(l10n.t("Taken back: peft-daemon works as before."));
    }
  }

  /** Let the user choose a setting, unless `name` says which, and its value. */
  async choose(name?: string): Promise<void> {
    const picks = settingPicks(await this.read());
    const named = picks.find(({ setting }) => setting.name === name);
    const picked =
      named ??
      (await vscode.window.showQuickPick(picks, {
        title: l10n.t("Settings of the daemon, for all editors on this machine"),
        placeHolder: l10n.t("Which one is to change?"),
        matchOnDetail: true,
      }));
    const value = picked && (await newValue(picked.setting));
    if (picked && value !== undefined) {
      const { name: changed } = picked.setting;
      const before = await this.write({ [changed]: value === "" ? undefined : value });
      const now = (await this.read()).find((each) => each.name === changed)?.value ?? value;
      await this.takeOver(l10n.t("{0} is {1} now.", changed, shownValue(now)), before);
    }
  }
}

/** Empty: the default; undefined: none was chosen. */
async function newValue(setting: DaemonSetting): Promise<string | undefined> {
  const title = `${setting.name}: ${setting.description}`;
  const standard = shownValue(setting.default);
  const choices = choicesOf(setting);
  if (choices === undefined) {
    return await vscode.window.showInputBox({
      title,
      prompt: l10n.t("Empty: the default, {0}", standard),
      value: setting.source === "default" ? "" : String(setting.value),
      validateInput: (typed) => objection(setting, typed),
    });
  }
  const items = choices.map((value) => ({
    label: value === String(setting.value) ? `$(check) ${value}` : value,
    description: value === String(setting.default) ? l10n.t("default") : "",
    value,
  }));
  return (await vscode.window.showQuickPick(items, { title }))?.value;
}
