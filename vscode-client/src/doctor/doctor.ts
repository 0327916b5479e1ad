/** Checks the installation and shows what was found. */
import * as vscode from "vscode";
import { documents, failureIn, isRecord } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { runCommand } from "../commandLine/peftDaemon";
import { aborting } from "../interaction";
import type { TextPage } from "../textPage";
import { findingsText } from "./findings";

export async function check(page: TextPage, command: CommandLine): Promise<void> {
  const title = vscode.l10n.t("peft-daemon: checking the installation");
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  const ended = await vscode.window.withProgress(options, (_progress, token) =>
    runCommand(command, ["doctor", "--json"], { signal: aborting(token) }),
  );
  // Exit code 1 with findings: a check failed, which is what they say.
  const found = documents(ended.stdout).find((document) => isRecord(document) && "checks" in document);
  const failure = found === undefined ? failureIn(ended) : undefined;
  if (failure) {
    throw failure;
  }
  const program = [command.program, ...command.first].join(" ");
  await page.show(`${findingsText(found)}\n${vscode.l10n.t("Started as: {0} (from: {1})", program, command.origin)}\n`);
}
