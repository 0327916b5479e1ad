/** A benchmark report in a tab of the editor. */
import { readFile } from "node:fs/promises";
import * as vscode from "vscode";
import { answer } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { ask, runCommand } from "../commandLine/peftDaemon";
import { confined } from "./confine";
import { reportPicks } from "./list";

export async function openReport(command: CommandLine): Promise<void> {
  const picks = await waiting(vscode.l10n.t("reading reports"), async () =>
    reportPicks(await ask(command, ["report", "list"])),
  );
  if (picks.length === 0) {
    const [what, open] = [
      vscode.l10n.t("There is no report yet. An evaluation in a terminal makes one."),
      vscode.l10n.t("Open a Terminal"),
    ];
    if ((await vscode.window.showInformationMessage(what, open)) === open) {
      const terminal = vscode.window.createTerminal("peft-daemon");
      terminal.show();
      const words = [command.program, ...command.first, "evaluate", "--dataset", "conala", "--limit", "50"];
      // Not yet run: it takes minutes.
      terminal.sendText(words.map((word) => (/\s/.test(word) ? `"${word}"` : word)).join(" "), false);
    }
    return;
  }
  const options = {
    title: vscode.l10n.t("Benchmark Report"),
    placeHolder: vscode.l10n.t("Which evaluation?"),
    matchOnDetail: true,
  };
  const picked = await vscode.window.showQuickPick(picks, options);
  if (!picked) {
    return;
  }
  const page = await waiting(`opening ${picked.name}`, async () => {
    // Made anew from its data, so the page and its script are this installation's.
    const ended = await runCommand(command, ["report", "open", picked.name, "--path"]);
    answer(ended);
    return await readFile(ended.stdout.trim(), "utf8");
  });
  const panel = vscode.window.createWebviewPanel("peftDaemon.report", picked.name, vscode.ViewColumn.Active, {
    enableScripts: true,
    enableFindWidget: true,
    localResourceRoots: [],
  });
  panel.webview.html = confined(page);
}

function waiting<T>(title: string, work: () => Promise<T>): Thenable<T> {
  return vscode.window.withProgress(
    { location: vscode.ProgressLocation.Window, title: vscode.l10n.t("peft-daemon: {0}", title) },
    work,
  );
}
