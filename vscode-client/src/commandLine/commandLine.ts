/** Which program is peft-daemon: the setting's, the private environment's, the one on PATH, or Python's module. */
import { posix, win32 } from "node:path";

export interface CommandLine {
  readonly program: string;
  /** Arguments that come before peft-daemon's own. */
  readonly first: readonly string[];
  readonly origin: "setting" | "environment" | "path" | "python";
}

/** What finding a program asks of the machine. */
export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly home: string;
  readonly path: string;
  isProgram(path: string): Promise<boolean>;
  /** Whether this Python has the module peft_daemon. */
  hasModule(python: string): Promise<boolean>;
}

export interface Wishes {
  /** The setting `peft-daemon.command`, as it stands there. */
  readonly command: unknown;
  readonly workspaceFolder: string | undefined;
  /** The folder of the private environment. */
  readonly environment: string;
}

/** Runs Python's module without taking modules from the current folder, which may be anybody's code. */
export const MODULE = ["-P", "-m", "peft_daemon"] as const;

/** The first that is there; undefined when peft-daemon is not installed. */
export async function findCommandLine(machine: Machine, wishes: Wishes): Promise<CommandLine | undefined> {
  const wished = await wishedCommand(machine, wishes);
  if (wished) {
    return wished;
  }
  const own = programsIn(machine, wishes.environment).command;
  if (await machine.isProgram(own)) {
    return { program: own, first: [], origin: "environment" };
  }
  const onPath = await findOnPath(machine, "peft-daemon");
  if (onPath !== undefined) {
    return { program: onPath, first: [], origin: "path" };
  }
  for (const name of ["python3", "python"]) {
    const python = await findOnPath(machine, name);
    if (python !== undefined && (await machine.hasModule(python))) {
      return { program: python, first: MODULE, origin: "python" };
    }
  }
  return undefined;
}

/** A program's absolute path; folders of PATH that are relative are not searched: they change with the workspace. */
export async function findOnPath(machine: Machine, name: string): Promise<string | undefined> {
  const paths = pathsOf(machine);
  for (const folder of machine.path.split(paths.delimiter)) {
    const program = paths.join(folder, executable(machine, name));
    if (paths.isAbsolute(folder) && (await machine.isProgram(program))) {
      return program;
    }
  }
  return undefined;
}

/** Where a virtual environment has its programs. */
export function programsIn(
  machine: Machine,
  environment: string,
): { readonly command: string; readonly python: string } {
  const paths = pathsOf(machine);
  const folder = paths.join(environment, machine.platform === "win32" ? "Scripts" : "bin");
  return {
    command: paths.join(folder, executable(machine, "peft-daemon")),
    python: paths.join(folder, executable(machine, "python")),
  };
}

async function wishedCommand(machine: Machine, wishes: Wishes): Promise<CommandLine | undefined> {
  const words: unknown[] = Array.isArray(wishes.command) ? wishes.command : [wishes.command];
  const [named, ...first] = words
    .filter((word): word is string => typeof word === "string" && word !== "")
    .map((word) => expanded(word, machine, wishes.workspaceFolder));
  return named === undefined ? undefined : { program: await located(machine, named), first, origin: "setting" };
}

/** A program's absolute path, so that nothing is left to the folder it is started in; a bare name if not on PATH. */
async function located(machine: Machine, program: string): Promise<string> {
  const paths = pathsOf(machine);
  if (paths.isAbsolute(program)) {
    return program;
  }
  const isName = paths.basename(program) === program;
  return isName ? ((await findOnPath(machine, program)) ?? program) : paths.join(machine.home, program);
}

function expanded(word: string, machine: Machine, workspaceFolder: string | undefined): string {
  const folder = workspaceFolder ?? "";
  const home = /^~(?=[\\/]|$)/;
  return word.replaceAll("${workspaceFolder}", () => folder).replace(home, () => machine.home);
}

function executable(machine: Machine, name: string): string {
  return machine.platform === "win32" && !name.toLowerCase().endsWith(".exe") ? `${name}.exe` : name;
}

function pathsOf(machine: Machine): typeof posix {
  return machine.platform === "win32" ? win32 : posix;
}
