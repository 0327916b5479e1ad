/** Tuning on the repository, as the user meets it: the plan, the question, the progress, and what came of it. */
import { execFile } from "node:child_process";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import * as vscode from "vscode";
import { CANCELLED, CommandFailed, documents, failureIn } from "../commandLine/answers";
import { type CommandLine, findOnPath } from "../commandLine/commandLine";
import { thisMachine } from "../commandLine/machine";
import { ask, required, runCommand } from "../commandLine/peftDaemon";
import { readAdapters } from "../adapters/picks";
import { aborting, showError, tell } from "../interaction";
import { tuneArguments } from "../settings";
import type { Outcome } from "./events";
import { adapterName } from "./names";
import { type Plan, SHORT_TIME, planText, readPlan } from "./plan";
import { NONE, type TuneRecord, type TuneRuns } from "./run";

/** Adapters that were tuned here: name to repository. */
const TUNED = "peftDaemon.tuned";
type Tuned = Readonly<Record<string, string>>;
/** Does work with a command, and has packages installed that it lacks; undefined when the user declines. */
export type WithExtra = <T>(work: (command: CommandLine) => Promise<T>) => Promise<T | undefined>;

export class Tuning implements vscode.Disposable {
  readonly #runs: TuneRuns;
  readonly #memory: vscode.Memento;
  readonly #command: () => Promise<CommandLine | undefined>;
  readonly #withExtra: WithExtra;
  readonly #leaving = new AbortController();
  /** Repositories whose run this window shows. */
  readonly #shown = new Set<string>();

  constructor(
    runs: TuneRuns,
    memory: vscode.Memento,
    command: () => Promise<CommandLine | undefined>,
    withExtra: WithExtra,
  ) {
    this.#runs = runs;
    this.#memory = memory;
    this.#command = command;
    this.#withExtra = withExtra;
  }

  /** Stops showing; runs go on. */
  dispose(): void {
    this.#leaving.abort();
  }

  /** Show runs of this window's folders that are under way, or ended while no window looked. */
  async showRunning(): Promise<void> {
    const folders = vscode.workspace.workspaceFolders ?? [];
    const found = await Promise.all(folders.map((folder) => this.#runs.of(folder.uri.fsPath)));
    const records = [...new Map(found.flatMap((each) => (each ? [[each.name, each]] : []))).values()];
    await Promise.all(records.filter(({ pid }) => pid !== NONE).map((record) => this.#show(record)));
  }

  async tune(): Promise<void> {
    if (!vscode.workspace.isTrusted) {
      throw new CommandFailed(
        vscode.l10n.t("Tuning reads the whole repository and needs a trusted workspace. Trust it first"),
      );
    }
    const command = required(await this.#command());
    const root = await pickRepository();
    if (root === undefined) {
      return;
    }
    const unfinished = await this.#runs.of(root);
    if (unfinished && (await this.#runs.isAlive(unfinished))) {
      void vscode.window.showInformationMessage(vscode.l10n.t("Tuning on {0} is under way.", unfinished.root));
      await this.#show(unfinished);
    } else if (unfinished && unfinished.pid !== NONE) {
      await this.#show(unfinished);
    } else if (unfinished) {
      await this.#goOn(command, unfinished);
    } else {
      await this.#beginAnew(command, root);
    }
  }

  async #goOn(command: CommandLine, unfinished: TuneRecord): Promise<void> {
    const chosen = await vscode.window.showInformationMessage(
      vscode.l10n.t("Tuning on {0} was interrupted. Its checkpoint is kept.", unfinished.root),
      { modal: true },
      vscode.l10n.t("Go On"),
      vscode.l10n.t("Start Again"),
    );
    if (chosen === vscode.l10n.t("Go On")) {
      await this.#run(command, unfinished, true);
    } else if (chosen === vscode.l10n.t("Start Again")) {
      await this.#beginAnew(command, unfinished.root);
    }
  }

  async #beginAnew(command: CommandLine, root: string): Promise<void> {
    const name = await this.#name(command, root);
    const args = [...tuneArguments(), "--repo", root, "--name", name, "--update"];
    const plan = await this.#withExtra((found) => this.#plan(found, args));
    if (!plan) {
      return;
    }
    const [tune, short] = [vscode.l10n.t("Tune"), vscode.l10n.t("10 Minutes Only")];
    const detail = planText(plan);
    const question = vscode.l10n.t("Tune on {0}?", basename(root));
    const chosen = await vscode.window.showInformationMessage(question, { modal: true, detail }, tune, short);
    if (chosen === undefined) {
      return;
    }
    const time = chosen === tune ? [] : ["--budget", SHORT_TIME];
    await this.#memory.update(TUNED, { ...this.#tuned(), [name]: root });
    await this.#run(command, { name, root, args: [...args, ...time], resumable: false }, false);
  }

  /** The same name for the same repository, so that a later adapter is the next version of the earlier one. */
  async #name(command: CommandLine, root: string): Promise<string> {
    const tuned = Object.entries(this.#tuned());
    const registered = readAdapters(await ask(command, ["adapters", "list"])).map(({ name }) => name);
    const others = tuned.filter(([, repository]) => repository !== root).map(([name]) => name);
    const own = new Set(tuned.filter(([, repository]) => repository === root).map(([name]) => name));
    const taken = new Set([...registered, ...others].filter((name) => !own.has(name)));
    return adapterName(basename(root), taken);
  }

  /** Undefined when the user did not wait for it. */
  async #plan(command: CommandLine, args: readonly string[]): Promise<Plan | undefined> {
    const title = vscode.l10n.t("peft-daemon: measuring what tuning would take, which takes a minute or more");
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    return await vscode.window.withProgress(options, async (_progress, token) => {
      const ended = await runCommand(command, ["tune", ...args, "--plan", "--json"], { signal: aborting(token) });
      if (token.isCancellationRequested) {
        return undefined;
      }
      const failure = failureIn(ended);
      if (failure) {
        throw failure;
      }
      const plan = documents(ended.stdout).map(readPlan).find(Boolean);
      if (!plan) {
        throw new CommandFailed(
          vscode.l10n.t("peft-daemon printed no plan: it and the extension are of different versions"),
        );
      }
      return plan;
    });
  }

  async #run(command: CommandLine, run: Omit<TuneRecord, "pid" | "birth">, resume: boolean): Promise<void> {
    await this.#show(await this.#runs.begin(command, run, resume));
  }

  async #show(record: TuneRecord): Promise<void> {
    if (this.#shown.has(record.root)) {
      return;
    }
    this.#shown.add(record.root);
    const outcome = await this.#progress(record).finally(() => this.#shown.delete(record.root));
    if (outcome) {
      await this.#tell(record, outcome);
    }
  }

  async #progress(record: TuneRecord): Promise<Outcome | undefined> {
    const title = vscode.l10n.t("Tuning on {0}", basename(record.root));
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    return await vscode.window.withProgress(options, async (progress, token) => {
      let reported = 0;
      let stopping = false;
      token.onCancellationRequested(() => {
        stopping = true;
        progress.report({ message: vscode.l10n.t("stopping at the next safe place") });
        void this.#runs.interrupt(record);
      });
      return await this.#runs.follow(
        record,
        ({ percent, message }) => {
          progress.report({ increment: percent - reported, ...(stopping ? {} : { message }) });
          reported = percent;
        },
        this.#leaving.signal,
      );
    });
  }

  async #tell(record: TuneRecord, outcome: Outcome): Promise<void> {
    switch (outcome.kind) {
      case "registered": {
        const { registered, verdict, forgets } = outcome;
        const what =
          registered.inUse.length > 0
            ? vscode.l10n.t(
                "{0} is in use in {1} from the next suggestion on: {2}.",
                registered.name,
                basename(record.root),
                verdict,
              )
            : vscode.l10n.t("{0} is kept, but not in use: {1}.", registered.name, registered.whyNot || verdict);
        const warning = forgets ? ` ${vscode.l10n.t("It is worse than the base on general code.")}` : "";
        if (
          (await vscode.window.showInformationMessage(what + warning, vscode.l10n.t("Show Card"))) ===
          vscode.l10n.t("Show Card")
        ) {
          const card = vscode.Uri.file(join(registered.folder, "README.md"));
          await vscode.commands.executeCommand("markdown.showPreview", card);
        }
        return;
      }
      case "interrupted": {
        const what = vscode.l10n.t(
          "Tuning on {0} stopped after step {1}; a checkpoint is kept.",
          basename(record.root),
          outcome.step,
        );
        if ((await vscode.window.showInformationMessage(what, vscode.l10n.t("Go On"))) === vscode.l10n.t("Go On")) {
          await this.#run(required(await this.#command()), { ...record, resumable: true }, true);
        }
        return;
      }
      case "failed":
        if (outcome.failure.code !== CANCELLED) {
          await this.#tellFailure(record, outcome.failure);
        }
    }
  }

  async #tellFailure(record: TuneRecord, failure: CommandFailed): Promise<void> {
    const leftover = / holds a run already$/.exec(failure.what);
    if (!leftover) {
      await tell(showError, failure.message);
      return;
    }
    const [goOn, again] = [vscode.l10n.t("Go On"), vscode.l10n.t("Delete It and Start Again")];
    const chosen = await vscode.window.showWarningMessage(failure.message, goOn, again);
    const command = required(await this.#command());
    if (chosen === goOn) {
      await this.#run(command, { ...record, resumable: true }, true);
    } else if (chosen === again) {
      const folder = failure.what.slice(0, leftover.index);
      if (basename(folder) === record.name) {
        await vscode.workspace.fs.delete(vscode.Uri.file(folder), { recursive: true });
      }
      await this.#run(command, record, false);
    }
  }

  #tuned(): Tuned {
    return this.#memory.get<Tuned>(TUNED, {});
  }
}

/** The root of the git work tree of a workspace folder; undefined when the user chose none. Throws where none is. */
async function pickRepository(): Promise<string | undefined> {
  const folders = vscode.workspace.workspaceFolders ?? [];
  const folder =
    folders.length > 1
      ? await vscode.window.showWorkspaceFolderPick({ placeHolder: vscode.l10n.t("On the code of which folder?") })
      : folders[0];
  if (!folder) {
    if (folders.length === 0) {
      throw new CommandFailed(vscode.l10n.t("There is no folder to tune on. Open a git repository"));
    }
    return undefined;
  }
  const git = await findOnPath(thisMachine, "git");
  if (git === undefined) {
    throw new CommandFailed(vscode.l10n.t("Tuning learns from committed code and needs git. Install it"));
  }
  try {
    const args = ["-C", folder.uri.fsPath, "rev-parse", "--show-toplevel"];
    const { stdout } = await promisify(execFile)(git, args, { cwd: homedir() });
    return stdout.trim();
  } catch {
    throw new CommandFailed(
      vscode.l10n.t(
        "{0} is no git repository: tuning learns from committed code. Run 'git init' and commit there",
        folder.uri.fsPath,
      ),
    );
  }
}
