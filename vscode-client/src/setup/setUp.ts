/** From nothing to suggestions: a private environment with peft-daemon in it, the model, the server. Asks before each. */
import { setTimeout as sleep } from "node:timers/promises";
import * as vscode from "vscode";
import { answer, CANCELLED, CommandFailed } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { thisMachine } from "../commandLine/machine";
import { ask, required, runCommand } from "../commandLine/peftDaemon";
import { run } from "../commandLine/running";
import { aborting } from "../interaction";
import { type Extra, missingExtra } from "./bundle";
import type { PrivateEnvironment } from "./environment";
import { type ModelOffer, modelPicks, readPlan } from "./models";
import { fetched, modelState, type ModelState, pipStep } from "./progress";
import { findPython, type Python, QUESTION } from "./python";

const POLL_MS = 2000;

export interface SetUp {
  readonly log: vscode.LogOutputChannel;
  readonly environment: PrivateEnvironment;
  find(): Promise<CommandLine | undefined>;
  /** Start the language server with what is there now. */
  start(): Promise<void>;
}

const NEEDS: Readonly<Record<Extra, string>> = {
  tune: vscode.l10n.t("Tuning needs PyTorch and more packages."),
  eval: vscode.l10n.t("Evaluation and its reports need PyTorch and more packages."),
};
const COST = vscode.l10n.t(
  "These take about 2 GB of disk. On Linux pip also brings the CUDA libraries, some gigabytes more; where there is no graphics card, name PyTorch's index of CPU builds in the setting 'peft-daemon.pipArguments' first.",
);

/** Do what is missing; returns early when the user declines. Throws CommandFailed. */
export async function setUp(own: SetUp): Promise<void> {
  let command = await own.find();
  if (!command || command.origin === "environment") {
    const state = await own.environment.state();
    if (state !== "current" && !(await installPackage(own, state))) {
      return;
    }
    command = await own.find();
  }
  if (!command) {
    throw new CommandFailed(
      vscode.l10n.t("pip installed the package, but it brought no command 'peft-daemon'. Look at the logs"),
    );
  }
  const model = await chooseModel(command);
  if (!model) {
    return;
  }
  await prepare(command, model);
  await own.start();
  void vscode.window.showInformationMessage(vscode.l10n.t("peft-daemon is ready. Type, and take grey text with Tab."));
}

/**
 * Bring the private environment up to the package that this extension came with, if it is an earlier one.
 * False where that needs packages that are not here: `offerUpdate` asks for these.
 */
export async function update(own: SetUp): Promise<boolean> {
  if ((await own.find())?.origin !== "environment" || !(await own.environment.isOutdated())) {
    return true;
  }
  const onLine = (line: string): void => {
    own.log.info(line);
  };
  return await own.environment.update({ onOutput: onLine, onError: onLine });
}

/** Ask for the packages that an update needs, and install them. */
export async function offerUpdate(own: SetUp): Promise<void> {
  const [now, later] = [vscode.l10n.t("Update"), vscode.l10n.t("Later")];
  const what = vscode.l10n.t("peft-daemon was updated with this extension and needs packages that are not here yet.");
  if ((await vscode.window.showInformationMessage(what, now, later)) === now) {
    await install(own, await python3(own.log), undefined);
    await own.start();
  }
}

/** Do work with a command; where it lacks packages, offer to install them into the private environment first. */
export async function withExtra<T>(own: SetUp, work: (command: CommandLine) => Promise<T>): Promise<T | undefined> {
  const command = required(await own.find());
  try {
    return await work(command);
  } catch (error) {
    const extra = error instanceof CommandFailed ? missingExtra(error.message) : undefined;
    if (extra === undefined || command.origin !== "environment") {
      throw error;
    }
    const detail = vscode.l10n.t("They go into {0}. {1}", own.environment.folder, COST);
    const yes = vscode.l10n.t("Install");
    const chosen = await vscode.window.showInformationMessage(
      vscode.l10n.t("{0} Install them?", NEEDS[extra]),
      { modal: true, detail },
      yes,
    );
    if (chosen !== yes) {
      return undefined;
    }
    await install(own, await python3(own.log), extra);
    return await work(command);
  }
}

/** Whether the package is in the private environment afterwards. */
async function installPackage(own: SetUp, state: "absent" | "broken" | "outdated"): Promise<boolean> {
  const python = await python3(own.log);
  const detail = vscode.l10n.t(
    "With Python {0} ({1}), into {2}. Nothing outside that folder changes. The package comes with the extension; what it needs is fetched from the package index: about 60 MB, 280 MB on the disk.",
    python.version,
    python.program,
    own.environment.folder,
  );
  const question = {
    absent: vscode.l10n.t("Install peft-daemon into an environment of its own?"),
    broken: vscode.l10n.t("The environment of peft-daemon does not work any more. Make it anew?"),
    outdated: vscode.l10n.t("Install the peft-daemon that came with this extension?"),
  }[state];
  const yes = vscode.l10n.t("Install");
  if ((await vscode.window.showInformationMessage(question, { modal: true, detail }, yes)) !== yes) {
    return false;
  }
  await install(own, python, undefined);
  return true;
}

async function install(own: SetUp, python: Python, extra: Extra | undefined): Promise<void> {
  const title = vscode.l10n.t("peft-daemon: installing");
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  await vscode.window.withProgress(options, async (progress, token) => {
    progress.report({ message: vscode.l10n.t("making the environment") });
    await own.environment.install(python, extra, {
      signal: aborting(token),
      onOutput: (line) => {
        own.log.info(line);
        const message = pipStep(line);
        if (message !== undefined) {
          progress.report({ message });
        }
      },
      onError: (line) => {
        own.log.warn(line);
      },
    });
  });
}

/** Fetch the model and start the daemon, which are the command's own business; here is only how far it is. */
export async function prepare(command: CommandLine, model: Pick<ModelOffer, "id" | "installed">): Promise<void> {
  const title = !model.installed
    ? vscode.l10n.t("peft-daemon: fetching {0}", model.id)
    : vscode.l10n.t("peft-daemon: starting");
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  await vscode.window.withProgress(options, async (progress, token) => {
    const done = new AbortController();
    const watching = watch(command, model.id, done.signal, (state) => {
      progress.report({ message: state.installed ? vscode.l10n.t("starting the daemon") : fetched(state) });
    });
    try {
      const ended = await runCommand(command, ["setup", "--model", model.id, "--yes", "--json"], {
        signal: aborting(token),
      });
      if (token.isCancellationRequested) {
        throw new CommandFailed("cancelled", CANCELLED);
      }
      answer(ended);
    } finally {
      done.abort();
      await watching;
    }
  });
}

async function watch(
  command: CommandLine,
  id: string,
  done: AbortSignal,
  tell: (state: ModelState) => void,
): Promise<void> {
  const isDone = (): boolean => done.aborted;
  while (!isDone()) {
    await sleep(POLL_MS, undefined, { signal: done }).catch(() => undefined);
    const state = modelState(await ask(command, ["models", "list"], { signal: done }).catch(() => undefined), id);
    if (state && !isDone()) {
      tell(state);
    }
  }
}

/** Have the machine measured, and let the user choose; undefined: none was chosen, and nothing is fetched. */
async function chooseModel(command: CommandLine): Promise<ModelOffer | undefined> {
  const title = vscode.l10n.t("peft-daemon: measuring this machine");
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  const plan = await vscode.window.withProgress(options, async (_, token) => {
    const ended = await runCommand(command, ["setup", "--plan", "--json"], { signal: aborting(token) });
    if (token.isCancellationRequested) {
      throw new CommandFailed("cancelled", CANCELLED);
    }
    return readPlan(answer(ended));
  });
  if (!plan) {
    throw new CommandFailed(vscode.l10n.t("peft-daemon did not tell which models fit this machine. Look at the logs"));
  }
  const picked = await vscode.window.showQuickPick(modelPicks(plan), {
    title: vscode.l10n.t("Model for this machine: {0}", plan.machine),
    placeHolder: vscode.l10n.t(
      "Recommended: {0}. It is verified before it is used, and completions never leave this machine",
      plan.reason,
    ),
    ignoreFocusOut: true,
    matchOnDetail: true,
  });
  return picked?.model;
}

async function python3(log: vscode.LogOutputChannel): Promise<Python> {
  // Only the user's own choice: a workspace must not say which program is started.
  const chosen = vscode.workspace.getConfiguration("python").inspect<string>("defaultInterpreterPath")?.globalValue;
  const { python, why } = await findPython(thisMachine, chosen, async (program, first) => {
    try {
      const args = [...first, "-I", "-c", QUESTION];
      const { code, stdout, stderr } = await run({ program, args, signal: AbortSignal.timeout(20_000) });
      log.info(`${program}: ${code === 0 ? stdout : stderr.trim()}`);
      return code === 0 ? stdout : undefined;
    } catch (error) {
      log.info(`${program}: ${String(error)}`);
      return undefined;
    }
  });
  if (!python) {
    throw new CommandFailed(why);
  }
  return python;
}
