/**
 * The private environment: made by the user's Python, filled with the package that the extension came with.
 *
 * A record in it says which wheel was installed last, so that an update of the extension is noticed. Asks nobody.
 */
import { l10n } from "vscode";
import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CANCELLED, CommandFailed, isRecord, parsed } from "../commandLine/answers";
import { type Machine, programsIn } from "../commandLine/commandLine";
import { birthOf, isRunning } from "../commandLine/processes";
import { type Ended, run, type Work } from "../commandLine/running";
import { type Bundle, type Extra, EXTRAS } from "./bundle";
import { checkArguments, installArguments, installFailure, isUnfit, replaceArguments, venvArguments } from "./pip";
import type { Python } from "./python";

const POLL_MS = 200;

export type Watch = Pick<Work, "signal" | "onOutput" | "onError">;

export interface Installed {
  readonly digest: string;
  readonly extras: readonly Extra[];
}

export class PrivateEnvironment {
  readonly folder: string;
  readonly #machine: Machine;
  readonly #bundle: () => Promise<Bundle>;
  readonly #options: () => readonly string[];
  readonly #run: (work: Work) => Promise<Ended>;

  /** `options` are further ones of pip, from the settings. */
  constructor(
    folder: string,
    machine: Machine,
    bundle: () => Promise<Bundle>,
    options: () => readonly string[],
    runner: (work: Work) => Promise<Ended> = run,
  ) {
    this.folder = folder;
    this.#machine = machine;
    this.#bundle = bundle;
    this.#options = options;
    this.#run = runner;
  }

  /** Whether another package than that of this extension is in it, as far as its record tells. */
  async isOutdated(): Promise<boolean> {
    return (await this.#installed())?.digest !== (await this.#bundle()).digest;
  }

  /** Whether the package of this very extension is in it; "broken": something is, which does not start. */
  async state(): Promise<"absent" | "broken" | "outdated" | "current"> {
    const { command } = programsIn(this.#machine, this.folder);
    if (!(await this.#machine.isProgram(command))) {
      return "absent";
    }
    // An upgrade of the system's Python takes the environment's away.
    const answered = await this.#run({ program: command, args: ["--version"], cwd: this.#cwd }).catch(() => undefined);
    if (answered?.code !== 0) {
      return "broken";
    }
    return (await this.isOutdated()) ? "outdated" : "current";
  }

  /** Make the environment where it is not, and install the package with `extra` and those it has; throws CommandFailed. */
  async install(python: Python, extra: Extra | undefined, watch: Watch): Promise<void> {
    const bundle = await this.#bundle();
    await mkdir(this.#cwd, { recursive: true });
    await this.#alone(watch, async () => {
      const { python: inside } = programsIn(this.#machine, this.folder);
      const [state, before] = [await this.state(), await this.#installed()];
      const extras = EXTRAS.filter((each) => each === extra || before?.extras.includes(each));
      await this.#step(python.program, [...python.first, ...venvArguments(this.folder, state === "broken")], watch);
      const options = this.#options();
      await this.#step(inside, installArguments(bundle, extras, options, true), watch).catch(async (error: unknown) => {
        if (!(error instanceof StepFailed && isUnfit(error.complaints))) {
          throw error;
        }
        watch.onError?.(l10n.t("the tested versions do not fit this machine; trying others"));
        await this.#step(inside, installArguments(bundle, extras, options, false), watch);
      });
      if (state === "outdated") {
        await this.#step(inside, replaceArguments(bundle), watch);
      }
      await this.#write({ digest: bundle.digest, extras });
    });
  }

  /** Put the extension's package in place of an earlier one, without the network; false: it needs packages from there. */
  async update(watch: Watch): Promise<boolean> {
    const bundle = await this.#bundle();
    return await this.#alone(watch, async () => {
      const before = await this.#installed();
      if (before?.digest === bundle.digest) {
        return true; // another window did it
      }
      const extras = before?.extras ?? [];
      const { python } = programsIn(this.#machine, this.folder);
      try {
        await this.#step(python, checkArguments(bundle, extras), watch);
      } catch (error) {
        if (error instanceof StepFailed) {
          return false;
        }
        throw error;
      }
      await this.#step(python, replaceArguments(bundle), watch);
      await this.#write({ digest: bundle.digest, extras });
      return true;
    });
  }

  get #cwd(): string {
    return dirname(this.folder);
  }

  get #record(): string {
    return join(this.folder, "installed.json");
  }

  async #installed(): Promise<Installed | undefined> {
    const record = parsed(await readFile(this.#record, "utf8").catch(() => ""));
    if (!isRecord(record) || typeof record["digest"] !== "string" || !Array.isArray(record["extras"])) {
      return undefined;
    }
    const named: readonly unknown[] = record["extras"];
    return { digest: record["digest"], extras: EXTRAS.filter((each) => named.includes(each)) };
  }

  async #write(installed: Installed): Promise<void> {
    await writeFile(this.#record, JSON.stringify(installed));
  }

  async #step(program: string, args: readonly string[], watch: Watch): Promise<void> {
    const ended = await this.#run({ ...watch, program, args, cwd: this.#cwd }).catch((error: unknown) => {
      throw new StepFailed(String(error));
    });
    if (watch.signal?.aborted) {
      throw new CommandFailed("cancelled", CANCELLED);
    }
    if (ended.code !== 0) {
      throw new StepFailed(`${ended.stdout}\n${ended.stderr}`);
    }
  }

  /** Windows of one user change the environment one after the other. */
  async #alone<T>(watch: Watch, work: () => Promise<T>): Promise<T> {
    const lock = `${this.folder}.lock`;
    const mine = `${lock}.${randomUUID()}`;
    await writeFile(mine, `${process.pid} ${await birthOf(process.pid)}`, { mode: 0o600 });
    try {
      // A link appears with its content, or not at all.
      while (!(await linked(mine, lock))) {
        if (watch.signal?.aborted) {
          throw new CommandFailed("cancelled", CANCELLED);
        }
        const [pid = "", birth = ""] = (await readFile(lock, "utf8").catch(() => "")).split(/ (.*)/);
        if (pid !== "" && !((await isRunning(Number(pid))) && (await birthOf(Number(pid))) === birth)) {
          await rm(lock, { force: true });
        } else {
          await sleep(POLL_MS);
        }
      }
    } finally {
      await rm(mine, { force: true });
    }
    try {
      return await work();
    } finally {
      await rm(lock, { force: true });
    }
  }
}

/** Whether the link was made; false where its name is taken. */
async function linked(existing: string, name: string): Promise<boolean> {
  try {
    await link(existing, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") {
      return false;
    }
    throw error;
  }
}

/** A step of pip or venv that failed, as a sentence, with all that it complained of. */
export class StepFailed extends CommandFailed {
  readonly complaints: string;

  constructor(complaints: string) {
    super(installFailure(complaints).message);
    this.complaints = complaints;
  }
}
