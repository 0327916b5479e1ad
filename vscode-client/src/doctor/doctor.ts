/** Checks the installation and shows what was found in a document that cannot be edited. */
import * as vscode from "vscode";
import { documents, failureIn, isRecord } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { runCommand } from "../commandLine/peftDaemon";
import { aborting } from "../interaction";
import { findingsText } from "./findings";

const SCHEME = "peft-daemon-doctor";

export class Doctor implements vscode.TextDocumentContentProvider, vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.#changed.event;
  readonly #provider = vscode.workspace.registerTextDocumentContentProvider(SCHEME, this);
  readonly #uri = vscode.Uri.from({ scheme: SCHEME, path: "peft-daemon doctor" });
  #text = "";

  dispose(): void {
    this.#provider.dispose();
    this.#changed.dispose();
  }

  provideTextDocumentContent(): string {
    return this.#text;
  }

  async check(command: CommandLine): Promise<void> {
    const title = "peft-daemon: checking the installation";
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
    this.#text = `${findingsText(found)}\nStarted as: ${program} (from: ${command.origin})\n`;
    this.#changed.fire(this.#uri);
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(this.#uri), { preview: true });
  }
}
