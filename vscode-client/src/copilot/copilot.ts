/** Whether GitHub Copilot writes suggestions too. */
import { isRecord } from "../commandLine/answers";

/** Its extensions; either of them completes code, by their version. */
export const COPILOT = ["GitHub.copilot", "GitHub.copilot-chat"] as const;

/** `isInstalled`: one of its extensions is there and on. `enable` is the setting `github.copilot.enable`. */
export function copilotCompletes(isInstalled: boolean, enable: unknown, inlineSuggestions: boolean): boolean {
  // The setting has a value for each language, and one for all others.
  const isOn = !isRecord(enable) || enable["*"] !== false;
  return isInstalled && inlineSuggestions && isOn;
}
