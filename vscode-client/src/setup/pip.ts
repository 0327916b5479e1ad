/** What pip and venv are told, and their failures in a sentence that says what to do. */
import { l10n } from "vscode";
import { CommandFailed } from "../commandLine/answers";
import { type Bundle, type Extra, requirement } from "./bundle";

// Isolated (-I): no module of the current folder or of the user's site is taken for pip's.
const PIP = ["-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"] as const;

/** Make an environment, or what is missing in one; `clear`: from the beginning. */
export function venvArguments(folder: string, clear: boolean): string[] {
  return ["-I", "-m", "venv", ...(clear ? ["--clear"] : []), folder];
}

/** Install the package with its dependencies; `constrained`: in the versions it was tested with. */
export function installArguments(
  bundle: Bundle,
  extras: readonly Extra[],
  options: readonly string[],
  constrained: boolean,
): string[] {
  const versions = constrained ? ["--constraint", bundle.constraints] : [];
  return [...PIP, ...versions, ...options, requirement(bundle, extras)];
}

/** Ask whether all dependencies are there, without the network. */
export function checkArguments(bundle: Bundle, extras: readonly Extra[]): string[] {
  return [...PIP, "--quiet", "--no-index", "--dry-run", requirement(bundle, extras)];
}

/** Put the package itself in place of another build, which pip would keep if its version is the same. */
export function replaceArguments(bundle: Bundle): string[] {
  return [...PIP, "--no-index", "--no-deps", "--force-reinstall", requirement(bundle, [])];
}

const UNREACHABLE =
  /NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries exceeded|Temporary failure in name resolution|Network is unreachable|connection broken/i;
const UNFIT = /No matching distribution found for|ResolutionImpossible|Failed (?:to build|building)|subprocess-exited/i;

/** Whether the tested versions themselves may be why: this Python or system may have others. */
export function isUnfit(complaints: string): boolean {
  return !UNREACHABLE.test(complaints) && UNFIT.test(complaints);
}

/** Why pip or venv failed. */
export function installFailure(complaints: string): CommandFailed {
  if (UNREACHABLE.test(complaints)) {
    return new CommandFailed(
      l10n.t(
        "The package index cannot be reached, and peft-daemon needs packages from it. Connect to the network (behind a proxy, set HTTPS_PROXY; for an index of your own, the setting 'peft-daemon.pipArguments'), then run 'peft-daemon: Set Up' again",
      ),
    );
  }
  if (/No space left on device|not enough space/i.test(complaints)) {
    return new CommandFailed(l10n.t("The disk is full. Make room, then run 'peft-daemon: Set Up' again"));
  }
  if (/ensurepip|No module named '?venv/i.test(complaints)) {
    return new CommandFailed(noVenv(l10n.t("This Python")));
  }
  const missing = /No matching distribution found for ([^\s;]+)/.exec(complaints)?.[1];
  if (missing !== undefined) {
    return new CommandFailed(
      l10n.t(
        "The package index has no '{0}' for this Python and system. Install another Python (3.11 to 3.13) and set 'python.defaultInterpreterPath' to it, then run 'peft-daemon: Set Up' again",
        missing,
      ),
    );
  }
  const lines = complaints.split("\n").map((line) => line.trim());
  const told = lines.findLast((line) => line.startsWith("ERROR: ")) ?? lines.findLast((line) => line !== "");
  const why = told?.replace(/^ERROR: /, "") ?? l10n.t("it said nothing");
  return new CommandFailed(l10n.t("peft-daemon could not be installed: {0}. Look at the logs", why));
}

/** What to do with a Python that has no venv; `python` is what it is called. */
export const noVenv = (python: string): string =>
  l10n.t(
    "{0} cannot make environments. Install what is missing (on Debian and Ubuntu: sudo apt install python3-venv), then run 'peft-daemon: Set Up' again",
    python,
  );
