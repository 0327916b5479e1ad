/** From nothing to suggestions: a private environment with peft-daemon in it, the model, the server. Asks before each. */
import { mkdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import * as vscode from "vscode";
import { answer, CommandFailed } from "../commandLine/answers";
import { type CommandLine, programsIn } from "../commandLine/commandLine";
import { thisMachine } from "../commandLine/machine";
import { ask, runCommand } from "../commandLine/peftDaemon";
import { run } from "../commandLine/running";
import { aborting } from "../interaction";
import { SECTION } from "../settings";
import { findPython, LEAST, type Python, QUESTION } from "./python";
import { chosenModel, fetched, type ModelState, pipStep } from "./progress";

const POLL_MS = 2000;

export interface SetUp {
  readonly log: vscode.LogOutputChannel;
  /** Folder of the private environment. */
  readonly environment: string;
  find(): Promise<CommandLine | undefined>;
  /** Start the language server with what is there now. */
  start(): Promise<void>;
}

/** Do what is missing; returns early when the user declines. Throws CommandFailed. */
export async function setUp(own: SetUp): Promise<void> {
  let command = await own.find();
  if (!command || command.origin === "environment") {
    if (!(await install(own, command !== undefined))) {
      return;
    }
    command = await own.find();
  }
  if (!command) {
    throw new CommandFailed("pip installed the package, but it brought no command 'peft-daemon'. Look at the logs");
  }
  const model = chosenModel(await ask(command, ["models", "list"]));
  if (model && !model.installed && !(await agreesToFetch(model))) {
    return;
  }
  await prepare(command, model);
  await own.start();
  void vscode.window.showInformationMessage("peft-daemon is ready. Type, and take grey text with Tab.");
}

/** Whether peft-daemon is in the private environment afterwards. */
async function install(own: SetUp, again: boolean): Promise<boolean> {
  const requirement = vscode.workspace.getConfiguration(SECTION).get("package", "peft-daemon[all]");
  const python = await python3(own.log);
  const detail = `With Python ${python.version} (${python.program}), into ${own.environment}. Nothing outside that folder changes. With '[all]' this takes some gigabytes of disk; the setting 'peft-daemon.package' says what is installed.`;
  const question = again
    ? `Install the newest '${requirement}'?`
    : `Install '${requirement}' into an environment of its own?`;
  const [yes, no] = again ? ["Install", "Keep What Is There"] : ["Install", undefined];
  const buttons = no === undefined ? [yes] : [yes, no];
  const chosen = await vscode.window.showInformationMessage(question, { modal: true, detail }, ...buttons);
  if (chosen !== yes) {
    return chosen !== undefined;
  }
  const title = "peft-daemon: installing";
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  await vscode.window.withProgress(options, async (progress, token) => {
    const signal = aborting(token);
    const onError = (line: string): void => {
      own.log.warn(line);
    };
    progress.report({ message: "making the environment" });
    await mkdir(own.environment, { recursive: true });
    await step(
      run({ program: python.program, args: [...python.first, "-m", "venv", own.environment], signal, onError }),
      token,
    );
    const { python: inside } = programsIn(thisMachine, own.environment);
    const onOutput = (line: string): void => {
      own.log.info(line);
      const message = pipStep(line);
      if (message !== undefined) {
        progress.report({ message });
      }
    };
    const args = ["-m", "pip", "install", "--upgrade", "--no-input", "--disable-pip-version-check", requirement];
    await step(run({ program: inside, args, signal, onOutput, onError }), token);
  });
  return true;
}

/** Fetch the model and start the daemon, which are the command's own business; here is only how far it is. */
async function prepare(command: CommandLine, model: ModelState | undefined): Promise<void> {
  const title = model && !model.installed ? `peft-daemon: fetching ${model.id}` : "peft-daemon: starting";
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  await vscode.window.withProgress(options, async (progress, token) => {
    const done = new AbortController();
    const watching = watch(command, done.signal, (state) => {
      progress.report({ message: state.installed ? "starting the daemon" : fetched(state) });
    });
    try {
      await step(runCommand(command, ["setup", "--json"], { signal: aborting(token) }), token);
    } finally {
      done.abort();
      await watching;
    }
  });
}

async function watch(command: CommandLine, done: AbortSignal, tell: (state: ModelState) => void): Promise<void> {
  const isDone = (): boolean => done.aborted;
  while (!isDone()) {
    await sleep(POLL_MS, undefined, { signal: done }).catch(() => undefined);
    const state = chosenModel(await ask(command, ["models", "list"], { signal: done }).catch(() => undefined));
    if (state && !isDone()) {
      tell(state);
    }
  }
}

async function agreesToFetch(model: ModelState): Promise<boolean> {
  const question = `Fetch the model ${model.id}?`;
  const detail = `${fetched(model)} are here. It is verified before it is used, and completions never leave this machine.`;
  return (await vscode.window.showInformationMessage(question, { modal: true, detail }, "Fetch")) === "Fetch";
}

async function python3(log: vscode.LogOutputChannel): Promise<Python> {
  // Only the user's own choice: a workspace must not say which program is started.
  const chosen = vscode.workspace.getConfiguration("python").inspect<string>("defaultInterpreterPath")?.globalValue;
  const found = await findPython(thisMachine, chosen, async (program, first) => {
    try {
      const args = [...first, "-c", QUESTION];
      const { code, stdout, stderr } = await run({ program, args, signal: AbortSignal.timeout(20_000) });
      log.info(`${program}: ${code === 0 ? stdout : stderr.trim()}`);
      return code === 0 ? stdout : undefined;
    } catch (error) {
      log.info(`${program}: ${String(error)}`);
      return undefined;
    }
  });
  if (!found) {
    throw new CommandFailed(
      `No Python of version ${LEAST.join(".")} or newer with 'venv' and 'ensurepip' was found. Install one (on Debian and Ubuntu: apt install python3-venv), or name peft-daemon in the setting 'peft-daemon.command'`,
    );
  }
  return found;
}

async function step(work: ReturnType<typeof run>, token: vscode.CancellationToken): Promise<void> {
  const ended = await work;
  if (token.isCancellationRequested) {
    throw new CommandFailed("cancelled", "cancelled");
  }
  answer(ended);
}
