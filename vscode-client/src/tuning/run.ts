/**
 * One tuning run as a process of its own, which outlives the window that began it.
 *
 * It writes to files in the extension's storage; whoever follows it reads those, so a window that was reloaded goes on
 * where the old one was. A record beside them says which process it is. Does not show anything.
 */
import { l10n } from "vscode";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, mkdir, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CANCELLED, CommandFailed, documents, isRecord, parsed, toldFailure } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { Lines } from "../commandLine/lines";
import { startFailure } from "../commandLine/peftDaemon";
import { birthOf, isRunning } from "../commandLine/processes";
import { type Outcome, readEvent, type TuneEvent } from "./events";
import { advanced, BEGINNING, type View } from "./view";

const POLL_MS = 300;
/** In the place of a process's number: the run has ended, and that was told. */
export const NONE = 0;

export interface TuneRecord {
  /** The adapter's. */
  readonly name: string;
  /** The repository. */
  readonly root: string;
  /** Arguments after `tune`, without `--resume`. */
  readonly args: readonly string[];
  /** The process; NONE when it has ended and can go on. */
  readonly pid: number;
  /** Tells the process from a later one with the same number; empty where the system does not say. */
  readonly birth: string;
  /** An earlier part of the run left a checkpoint. */
  readonly resumable: boolean;
}

export class TuneRuns {
  readonly #folder: string;
  /** Process numbers of runs that were begun here: as long as they run, these are theirs. */
  readonly #own = new Set<number>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Start `tune`; throws when the program cannot be started. */
  async begin(command: CommandLine, run: Omit<TuneRecord, "pid" | "birth">, resume: boolean): Promise<TuneRecord> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const output = await open(this.#file(run.name, "jsonl"), "w", 0o600);
    const errors = await open(this.#file(run.name, "log"), "w", 0o600);
    try {
      const args = [...command.first, "tune", ...run.args, ...(resume ? ["--resume"] : []), "--json"];
      const child = spawn(command.program, args, {
        cwd: homedir(),
        detached: true,
        stdio: ["ignore", output.fd, errors.fd],
        windowsHide: true,
      });
      await once(child, "spawn").catch((error: unknown) => {
        throw startFailure(command, error);
      });
      child.unref();
      const pid = child.pid ?? NONE;
      this.#own.add(pid);
      child.once("exit", () => this.#own.delete(pid));
      const record = { ...run, pid, birth: await birthOf(pid) };
      await this.#write(record);
      return record;
    } finally {
      await output.close();
      await errors.close();
    }
  }

  /**
   * Read the run's events until it has ended; undefined when `stopped` came first. `tell` gets each view.
   * A run that cannot go on is forgotten.
   */
  async follow(record: TuneRecord, tell: (view: View) => void, stopped: AbortSignal): Promise<Outcome | undefined> {
    const file = await open(this.#file(record.name, "jsonl"), "r");
    const lines = new Lines();
    let view = BEGINNING;
    let registered: (TuneEvent & { type: "registered" }) | undefined;
    const read = async (): Promise<void> => {
      for (const event of lines.add(await readOn(file)).map(readEvent)) {
        if (event) {
          view = advanced(view, event);
          registered = event.type === "registered" ? event : registered;
          tell(view);
        }
      }
    };
    try {
      for (let alive = await this.isAlive(record); alive; alive = await isRunning(record.pid)) {
        if (stopped.aborted) {
          return undefined;
        }
        await read();
        await sleep(POLL_MS);
      }
      await read();
    } finally {
      await file.close();
    }
    const outcome: Outcome = registered
      ? { kind: "registered", registered, verdict: view.verdict, forgets: view.forgets }
      : await this.#failure(record, view);
    if (outcome.kind === "registered" || (outcome.kind === "failed" && !record.resumable)) {
      await this.forget(record);
    } else {
      await this.#write({ ...record, resumable: true, pid: NONE, birth: "" });
    }
    return outcome;
  }

  /** Ask the run to stop; a checkpoint is written first. */
  async interrupt(record: TuneRecord): Promise<void> {
    if (await this.isAlive(record)) {
      process.kill(record.pid, "SIGINT");
    }
  }

  /** Whether it is under way, not another process with its number. */
  async isAlive({ pid, birth }: TuneRecord): Promise<boolean> {
    return this.#own.has(pid) || (birth !== "" && (await birthOf(pid)) === birth && (await isRunning(pid)));
  }

  /** The run whose repository holds `folder`, or lies in it; undefined when there is none. */
  async of(folder: string): Promise<TuneRecord | undefined> {
    return (await this.all()).find(({ root }) => within(folder, root) || within(root, folder));
  }

  /** Runs that are under way, and those that can go on. */
  async all(): Promise<TuneRecord[]> {
    const names = await readdir(this.#folder).catch(() => [] as string[]);
    const records = names.filter((name) => name.endsWith(".json")).map((name) => this.#read(join(this.#folder, name)));
    return (await Promise.all(records)).filter((record) => record !== undefined);
  }

  async forget(record: TuneRecord): Promise<void> {
    for (const kind of ["json", "jsonl", "log"] as const) {
      await rm(this.#file(record.name, kind), { force: true });
    }
  }

  async #failure(record: TuneRecord, view: View): Promise<Outcome> {
    const told = documents(await readFile(this.#file(record.name, "jsonl"), "utf8"))
      .map(toldFailure)
      .find(Boolean);
    if (told?.code === CANCELLED || (!told && view.started)) {
      return view.started || record.resumable
        ? { kind: "interrupted", step: view.step }
        : {
            kind: "failed",
            failure: new CommandFailed(l10n.t("Tuning was cancelled before its first step"), CANCELLED),
          };
    }
    if (told) {
      return { kind: "failed", failure: told };
    }
    const log = await readFile(this.#file(record.name, "log"), "utf8");
    const last = log.trim().split("\n").at(-1);
    return {
      kind: "failed",
      failure: new CommandFailed(l10n.t("Tuning ended unexpectedly: {0}", last ?? l10n.t("it said nothing"))),
    };
  }

  async #write(record: TuneRecord): Promise<void> {
    await writeFile(this.#file(record.name, "json"), JSON.stringify(record), { mode: 0o600 });
  }

  async #read(path: string): Promise<TuneRecord | undefined> {
    const value = parsed(await readFile(path, "utf8").catch(() => ""));
    return isRecord(value) &&
      typeof value["name"] === "string" &&
      typeof value["root"] === "string" &&
      typeof value["pid"] === "number" &&
      typeof value["birth"] === "string" &&
      Array.isArray(value["args"])
      ? {
          name: value["name"],
          root: value["root"],
          args: value["args"].map(String),
          pid: value["pid"],
          birth: value["birth"],
          resumable: value["resumable"] === true,
        }
      : undefined;
  }

  #file(name: string, kind: "json" | "jsonl" | "log"): string {
    return join(this.#folder, `${name}.${kind}`);
  }
}

/** What the file has got since it was read last. */
async function readOn(file: FileHandle): Promise<Uint8Array> {
  const pieces: Buffer[] = [];
  for (;;) {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(65_536), 0, 65_536, null);
    if (bytesRead === 0) {
      return Buffer.concat(pieces);
    }
    pieces.push(buffer.subarray(0, bytesRead));
  }
}

function within(inner: string, outer: string): boolean {
  const path = relative(outer, inner);
  return !path.startsWith("..") && !isAbsolute(path);
}
