/** Code from a comment or a selection: asked for, shown as a difference, accepted or discarded. One at a time. */
import { basename } from "node:path";
import * as vscode from "vscode";
import type { LanguageServer } from "../server/languageServer";
import { applied, followed, type Proposed, readProposed, type Span } from "./edit";

export const SCHEME = "peft-daemon-proposal";
const PROPOSE = "peft-daemon.propose";

interface Proposal {
  readonly document: vscode.TextDocument;
  /** What it was made from, for asking again. */
  readonly asked: vscode.Range;
  readonly newText: string;
  readonly title: string;
  /** The right side of the difference. */
  readonly uri: vscode.Uri;
  /** The document's version that the right side shows. */
  version: number;
  /** What is replaced in the document as it is now; undefined when an edit touched it. */
  place: Span | undefined;
}

export class Proposals implements vscode.TextDocumentContentProvider, vscode.Disposable {
  readonly #server: LanguageServer;
  readonly #changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.#changed.event;
  readonly #listening: vscode.Disposable;
  #current: Proposal | undefined;
  #count = 0;

  constructor(server: LanguageServer) {
    this.#server = server;
    this.#listening = vscode.Disposable.from(
      vscode.workspace.registerTextDocumentContentProvider(SCHEME, this),
      vscode.workspace.onDidChangeTextDocument((event) => {
        this.#follow(event);
      }),
      vscode.workspace.onDidCloseTextDocument((document) => {
        if (document.uri.toString() === this.#current?.uri.toString()) {
          this.#current = undefined;
        }
      }),
    );
  }

  dispose(): void {
    this.#listening.dispose();
    this.#changed.dispose();
  }

  provideTextDocumentContent(uri: vscode.Uri): string {
    const proposal = this.#current;
    return proposal?.place && proposal.uri.toString() === uri.toString()
      ? applied(proposal.document.getText(), proposal.place, proposal.newText)
      : "";
  }

  /** Ask for code for what is selected in the active editor, or for the comment that the cursor stands in. */
  async generate(): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (!editor || editor.document.uri.scheme === SCHEME) {
      void vscode.window.showInformationMessage("Place the cursor on a comment, or select a sentence, and try again.");
      return;
    }
    await this.#ask(editor.document, editor.selection);
  }

  async accept(): Promise<void> {
    const proposal = this.#current;
    if (!proposal) {
      return;
    }
    if (!proposal.place) {
      await this.#offer("The text that the proposal would replace was edited meanwhile.", "Generate Again", () =>
        this.#ask(proposal.document, proposal.asked),
      );
    } else if (proposal.document.version !== proposal.version) {
      await this.#offer(`${basename(proposal.document.fileName)} was edited meanwhile.`, "Compare Again", () => {
        proposal.version = proposal.document.version;
        this.#changed.fire(proposal.uri);
        return Promise.resolve();
      });
    } else {
      await this.#apply(proposal, proposal.place);
    }
  }

  async discard(): Promise<void> {
    const proposal = this.#current;
    this.#current = undefined;
    if (proposal) {
      await closeTabs(proposal.uri);
    }
  }

  async #ask(document: vscode.TextDocument, range: vscode.Range): Promise<void> {
    const title = "peft-daemon: generating code";
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    const proposed = await vscode.window.withProgress(options, async (progress, token) => {
      const target = { uri: document.uri.toString(), range: { start: range.start, end: range.end } };
      const report = (message: string): void => {
        progress.report({ message });
      };
      try {
        const answer = await this.#server.executeWithProgress(PROPOSE, [target], report, token);
        return token.isCancellationRequested ? undefined : readProposed(answer);
      } catch (error) {
        if (token.isCancellationRequested) {
          return undefined;
        }
        throw error;
      }
    });
    if (!proposed) {
      return; // Cancelled, or there is none: then the server has told why.
    }
    await this.discard();
    await this.#show(document, range, proposed);
  }

  async #show(document: vscode.TextDocument, asked: vscode.Range, proposed: Proposed): Promise<void> {
    if (document.isClosed) {
      return;
    }
    if (document.version !== proposed.version) {
      await this.#offer("The document was edited while the model was writing.", "Generate Again", () =>
        this.#ask(document, asked),
      );
      return;
    }
    const { start, end } = proposed.range;
    const range = new vscode.Range(start.line, start.character, end.line, end.character);
    this.#count += 1;
    // The document's own path, so that its language is recognized; the number makes each proposal a document of its own.
    const uri = document.uri.with({ scheme: SCHEME, authority: "", query: String(this.#count) });
    const { newText, title, version } = proposed;
    const place = { start: document.offsetAt(range.start), end: document.offsetAt(range.end) };
    this.#current = { document, asked, newText, title, uri, version, place };
    // Where the new text's first line begins: at the range itself the view would be scrolled to the line's end.
    const below = newText.startsWith("\n") || newText.startsWith("\r\n") ? 1 : 0;
    const shown = new vscode.Position(start.line + below, 0);
    const options = { preview: false, selection: new vscode.Range(shown, shown) };
    const heading = `${basename(document.fileName)}: ${title}`;
    await vscode.commands.executeCommand("vscode.diff", document.uri, uri, heading, options);
  }

  async #apply(proposal: Proposal, place: Span): Promise<void> {
    const { document } = proposal;
    const range = new vscode.Range(document.positionAt(place.start), document.positionAt(place.end));
    const edit = new vscode.WorkspaceEdit();
    edit.replace(document.uri, range, proposal.newText);
    this.#current = undefined;
    if (!(await vscode.workspace.applyEdit(edit))) {
      this.#current = proposal;
      throw new Error("The editor did not take the code: the file may be read-only");
    }
    await closeTabs(proposal.uri);
    const end = document.positionAt(place.start + proposal.newText.length);
    await vscode.window.showTextDocument(document, { selection: new vscode.Range(end, end), preview: false });
  }

  async #offer(what: string, action: string, act: () => Promise<void>): Promise<void> {
    if ((await vscode.window.showWarningMessage(what, action)) === action) {
      await act();
    }
  }

  #follow(event: vscode.TextDocumentChangeEvent): void {
    const proposal = this.#current;
    if (event.document === proposal?.document) {
      // The editor tells several changes from the last to the first, so each one's offsets are right.
      for (const { rangeOffset, rangeLength, text } of event.contentChanges) {
        const change = { start: rangeOffset, end: rangeOffset + rangeLength, inserted: text.length };
        proposal.place = proposal.place && followed(proposal.place, change);
      }
    }
  }
}

async function closeTabs(modified: vscode.Uri): Promise<void> {
  const tabs = vscode.window.tabGroups.all
    .flatMap((group) => group.tabs)
    .filter(
      ({ input }) => input instanceof vscode.TabInputTextDiff && input.modified.toString() === modified.toString(),
    );
  await vscode.window.tabGroups.close(tabs);
}
