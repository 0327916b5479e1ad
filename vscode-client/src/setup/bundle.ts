/** The Python package that the extension came with: a wheel of its own version, and the versions it was tested with. */
import { l10n } from "vscode";
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { CommandFailed } from "../commandLine/answers";

export interface Bundle {
  readonly wheel: string;
  /** A file of exact versions, for pip. */
  readonly constraints: string;
  /** Sha256 of the wheel: two builds of one version differ. */
  readonly digest: string;
}

/** Parts of the package that are installed only when they are asked for. */
export const EXTRAS = ["tune", "eval"] as const;
export type Extra = (typeof EXTRAS)[number];

/** What lies in a folder of the extension; throws CommandFailed where it came without. */
export async function readBundle(folder: string): Promise<Bundle> {
  const names = await readdir(folder).catch((): string[] => []);
  const [name, another] = names.filter((each) => each.endsWith(".whl"));
  if (name === undefined || another !== undefined) {
    throw new CommandFailed(
      l10n.t(
        "This build of the extension came without peft-daemon. Install one that `make vsix` built, or name peft-daemon in the setting 'peft-daemon.command'",
      ),
    );
  }
  const wheel = join(folder, name);
  const digest = createHash("sha256")
    .update(await readFile(wheel))
    .digest("hex");
  return { wheel, constraints: join(folder, "constraints.txt"), digest };
}

/** The wheel as a requirement of pip. */
export function requirement({ wheel }: Bundle, extras: readonly Extra[]): string {
  const chosen = extras.length > 0 ? `[${extras.join(",")}]` : "";
  return `peft-daemon${chosen} @ ${pathToFileURL(wheel).href}`;
}

/** The extra that a command said it needs; undefined when it failed for another reason. */
export function missingExtra(message: string): Extra | undefined {
  return EXTRAS.find((extra) => message.includes("Install the extra: ") && message.includes(`[${extra}]`));
}
