/** A Python that peft-daemon can be installed with. */
import { findOnPath, type Machine } from "../commandLine/commandLine";

export const LEAST = [3, 11] as const;
const LAUNCHER = ["-3"] as const;

export interface Python {
  readonly program: string;
  readonly first: readonly string[];
  readonly version: string;
}

/** Prints the version, and fails where environments cannot be made. */
export const QUESTION = "import ensurepip, platform, venv; print(platform.python_version())";

/** The first Python that is new enough and can make environments. `answerOf` runs QUESTION; undefined: it failed. */
export async function findPython(
  machine: Machine,
  preferred: string | undefined,
  answerOf: (program: string, first: readonly string[]) => Promise<string | undefined>,
): Promise<Python | undefined> {
  const names = ["python3", "python", "python3.14", "python3.13", "python3.12", "python3.11"];
  const found = await Promise.all(names.map((name) => findOnPath(machine, name)));
  for (const program of new Set([preferred, ...found])) {
    const version = program && readVersion(await answerOf(program, []));
    if (program && version && isNewEnough(version)) {
      return { program, first: [], version };
    }
  }
  // Windows' launcher knows Pythons that are not on PATH.
  const launcher = machine.platform === "win32" ? await findOnPath(machine, "py") : undefined;
  const version = launcher && readVersion(await answerOf(launcher, LAUNCHER));
  return launcher && version && isNewEnough(version) ? { program: launcher, first: LAUNCHER, version } : undefined;
}

/** `3.12.4` from a line such as `3.12.4` or `Python 3.13.0rc1`; undefined for anything else. */
export function readVersion(line: string | undefined): string | undefined {
  return /^(?:Python )?(\d+\.\d+(?:\.\d+)?)/.exec(line?.trim() ?? "")?.[1];
}

export function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > LEAST[0] || (major === LEAST[0] && minor >= LEAST[1]);
}
