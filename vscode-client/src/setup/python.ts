/** A Python that peft-daemon can be installed with. */
import { l10n } from "vscode";
import { findOnPath, type Machine } from "../commandLine/commandLine";
import { noVenv } from "./pip";

export const LEAST = [3, 11] as const;
const LAUNCHER = ["-3"] as const;

export interface Python {
  readonly program: string;
  readonly first: readonly string[];
  readonly version: string;
}

/** Prints the version, and whether environments can be made. */
export const QUESTION = `import platform
try:
    import ensurepip, venv
    print(platform.python_version() + " complete")
except ImportError:
    print(platform.python_version() + " without venv")`;

export interface Search {
  /** The first that will do. */
  readonly python: Python | undefined;
  /** Why there is none, and what to do; empty when there is one. */
  readonly why: string;
}

/** Look for a Python that is new enough and can make environments. `answerOf` runs QUESTION; undefined: it failed. */
export async function findPython(
  machine: Machine,
  preferred: string | undefined,
  answerOf: (program: string, first: readonly string[]) => Promise<string | undefined>,
): Promise<Search> {
  const names = ["python3", "python", "python3.14", "python3.13", "python3.12", "python3.11"];
  const found = await Promise.all(names.map((name) => findOnPath(machine, name)));
  // Windows' launcher knows Pythons that are not on PATH.
  const launcher = machine.platform === "win32" ? await findOnPath(machine, "py") : undefined;
  const programs: [string | undefined, readonly string[]][] = [
    ...[...new Set([preferred, ...found])].map((each): [string | undefined, readonly string[]] => [each, []]),
    [launcher, LAUNCHER],
  ];
  let tooOld = "";
  let incomplete = "";
  for (const [program, first] of programs) {
    const answer = program && (await answerOf(program, first));
    const version = answer ? readVersion(answer) : undefined;
    if (!program || !answer || !version) {
      continue;
    }
    if (!isNewEnough(version)) {
      tooOld ||= `Python ${version} (${program})`;
    } else if (answer.trim().endsWith("complete")) {
      return { python: { program, first, version }, why: "" };
    } else {
      incomplete ||= `Python ${version} (${program})`;
    }
  }
  return { python: undefined, why: whyNone(tooOld, incomplete) };
}

function whyNone(tooOld: string, incomplete: string): string {
  const least = LEAST.join(".");
  if (incomplete) {
    return noVenv(incomplete);
  }
  const found = tooOld ? l10n.t("{0} is too old", tooOld) : l10n.t("There is no Python on this machine");
  return l10n.t(
    "{0}: peft-daemon needs {1} or newer. Install it, or name one in the setting 'python.defaultInterpreterPath', then run 'peft-daemon: Set Up' again",
    found,
    least,
  );
}

/** `3.12.4` from a line such as `3.12.4 complete` or `Python 3.13.0rc1`; undefined for anything else. */
export function readVersion(line: string | undefined): string | undefined {
  return /^(?:Python )?(\d+\.\d+(?:\.\d+)?)/.exec(line?.trim() ?? "")?.[1];
}

export function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > LEAST[0] || (major === LEAST[0] && minor >= LEAST[1]);
}
