/** Which model answers, and what runs it: chosen from one list, changed with progress, and taken back with a button. */
import { l10n } from "vscode";
import * as vscode from "vscode";
import { CANCELLED, CommandFailed, isRecord } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { ask, required } from "../commandLine/peftDaemon";
import type { Changes, DaemonSettings } from "../daemon/daemonSettings";
import { aborting } from "../interaction";
import { readPlan } from "../setup/models";
import { prepare, type SetUp } from "../setup/setUp";
import { type Choice, type Known, modelMenu, type ModelMenuItem } from "./picks";
import { connect } from "./server";

export async function chooseModel(own: SetUp, settings: DaemonSettings): Promise<void> {
  const command = required(await own.find());
  const choice = await pick(command, settings);
  switch (choice?.kind) {
    case undefined:
      return;
    case "model":
      await useModel(settings, command, choice);
      return;
    case "found": {
      const id = await addModel(command, choice);
      await useModel(settings, command, { id, installed: true });
      return;
    }
    case "program":
      await change(
        settings,
        { llama_server: choice.program === "auto" ? undefined : choice.program },
        l10n.t("The model is run by {0} from now on.", choice.label),
      );
      return;
    case "local":
      await change(settings, { engine: undefined }, l10n.t("The model on this machine answers from now on."));
      return;
    case "server":
      await connect(command, settings);
  }
}

async function change(settings: DaemonSettings, changes: Changes, told: string): Promise<void> {
  await settings.takeOver(told, await settings.write(changes));
}

async function useModel(
  settings: DaemonSettings,
  command: CommandLine,
  model: { readonly id: string; readonly installed: boolean },
): Promise<void> {
  const before = await settings.written(["model"]);
  await prepare(command, model);
  await settings.takeOver(l10n.t("{0} answers from now on.", model.id), before);
}

async function addModel(command: CommandLine, choice: Choice & { kind: "found" }): Promise<string> {
  const title = l10n.t("peft-daemon: reading and trying {0}", choice.name);
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  return await vscode.window.withProgress(options, async (_progress, token) => {
    const added = await ask(command, ["models", "add", choice.source], { signal: aborting(token) });
    if (!isRecord(added)) {
      throw new CommandFailed("cancelled", CANCELLED);
    }
    return String(added["id"]);
  });
}

/** Shows the list at once, and what the machine is measured to do with each when that is known. */
async function pick(command: CommandLine, settings: DaemonSettings): Promise<Choice | undefined> {
  const list = vscode.window.createQuickPick<ModelMenuItem & vscode.QuickPickItem>();
  const closed = new AbortController();
  let known: Known = { settings: [] };
  const show = (more: Partial<Known>): void => {
    known = { ...known, ...more };
    const active = list.activeItems[0]?.label;
    list.items = modelMenu(known).map((item) =>
      item.choice ? item : { ...item, kind: vscode.QuickPickItemKind.Separator },
    );
    list.activeItems = list.items.filter(({ label }) => label === active).slice(0, 1);
  };
  const read = async (name: "models" | "found" | "programs", args: readonly string[]): Promise<void> => {
    show({ [name]: await ask(command, args, { signal: closed.signal }) });
  };
  list.title = l10n.t("Model and engine");
  list.placeholder = l10n.t("Measuring this machine, which takes ten seconds; you can choose meanwhile");
  list.matchOnDescription = list.matchOnDetail = true;
  list.busy = true;
  list.show();
  const chosen = new Promise<Choice | undefined>((resolve) => {
    list.onDidAccept(() => {
      resolve(list.selectedItems[0]?.choice);
    });
    list.onDidHide(() => {
      resolve(undefined);
    });
  });
  const reading = (async () => {
    await Promise.all([
      settings.read().then((rows) => {
        show({ settings: rows });
      }),
      read("models", ["models", "list"]),
      read("found", ["models", "found"]),
      read("programs", ["engine", "list"]),
    ]);
    const plan = readPlan(await ask(command, ["setup", "--plan"], { signal: closed.signal }));
    show({ plan });
    list.placeholder = plan
      ? l10n.t("For this machine: {0}, {1}", plan.recommended, plan.reason)
      : l10n.t("Which model is to answer?");
  })()
    .catch((error: unknown) => {
      // Without figures the list can still be chosen from; without models there is nothing to choose.
      if (known.models === undefined && !closed.signal.aborted) {
        throw error;
      }
    })
    .finally(() => {
      list.busy = false;
    });
  try {
    return await Promise.race([chosen, reading.then(() => chosen)]);
  } finally {
    closed.abort();
    list.dispose();
    await reading.catch(() => undefined);
  }
}
