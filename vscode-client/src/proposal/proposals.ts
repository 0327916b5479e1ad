/**
 * What the model proposes: asked for, shown as a difference that grows while it is written, accepted or discarded.
 * One at a time. Nothing is edited before it is accepted.
 */
import { basename } from "node:path";
import * as vscode from "vscode";
import type { LanguageServer } from "../server/languageServer";
import { reveal } from "../notebooks";
import { applied, followed, type Proposed, readProposed, type Span } from "./edit";
import { newTestFile, testFiles } from "./testFile";

export const SCHEME = "peft-daemon-proposal";
/** Of when-clauses: a proposal is still being written. */
const WRITING = "peftDaemon.proposalWriting";

/** A command of the language server that proposes something, and how its work is called. */
export interface Kind {
  readonly command: string;
  readonly progress: string;
}

export const GENERATE: Kind = {
  command: "peft-daemon.propose",
  progress: vscode.l10n.t("peft-daemon: generating code"),
};
export const EDIT: Kind = {
  command: "peft-daemon.edit",
  progress: vscode.l10n.t("peft-daemon: editing the selection"),
};
export const DOCUMENT: Kind = {
  command: "peft-daemon.document",
  progress: vscode.l10n.t("peft-daemon: writing documentation"),
};
export const TEST: Kind = { command: "peft-daemon.test", progress: vscode.l10n.t("peft-daemon: writing a test") };

/** What is asked of the server, so that it can be asked again. */
interface Question {
  readonly kind: Kind;
  readonly document: vscode.TextDocument;
  readonly range: vscode.Range;
  readonly instruction?: string;
}

interface Proposal {
  readonly question: Question;
  /** What is edited: the question's document, or a file of tests. */
  readonly document: vscode.TextDocument;
  /** Between what stands there and the text. */
  readonly lead: string;
  newText: string;
  /** The left side of the difference: a copy, which can be laid out for it and not be edited. */
  readonly before: vscode.Uri;
  /** The right side. */
  readonly uri: vscode.Uri;
  /** The document's text that is compared ... */
  text: string;
  /** ... and its version. */
  version: number;
  /** What is replaced in the document as it is now; undefined when an edit touched it. */
  place: Span | undefined;
  /** Stops the model; undefined once the text is whole. */
  writing: vscode.CancellationTokenSource | undefined;
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
      vscode.window.tabGroups.onDidChangeTabs(({ closed }) => {
        const proposal = this.#current;
        if (proposal && closed.some((tab) => shows(tab, proposal.uri))) {
          this.#forget();
        }
      }),
    );
  }

  dispose(): void {
    this.#forget();
    this.#listening.dispose();
    this.#changed.dispose();
  }

  provideTextDocumentContent(uri: vscode.Uri): string {
    const proposal = this.#current;
    if (proposal?.before.toString() === uri.toString()) {
      return proposal.text;
    }
    return proposal?.place && proposal.uri.toString() === uri.toString()
      ? applied(proposal.text, proposal.place, proposal.lead + proposal.newText)
      : "";
  }

  /** Ask for code for what is selected in the active editor, or for the comment that the cursor stands in. */
  async generate(): Promise<void> {
    const editor = sourceEditor();
    if (editor) {
      await this.#ask({ kind: GENERATE, document: editor.document, range: editor.selection });
    } else {
      void vscode.window.showInformationMessage(
        vscode.l10n.t("Place the cursor on a comment, or select a sentence, and try again."),
      );
    }
  }

  /** Ask what is to be done with the selection, or with the function at the cursor, and have it done. */
  async edit(): Promise<void> {
    const editor = sourceEditor();
    if (!editor) {
      void vscode.window.showInformationMessage(
        vscode.l10n.t("Select the lines to be changed, or place the cursor in a function, and try again."),
      );
      return;
    }
    const { document, selection: range } = editor;
    const lines = range.end.line - range.start.line + 1;
    const title = range.isEmpty
      ? vscode.l10n.t("Edit the function at the cursor, or its line")
      : lines === 1
        ? vscode.l10n.t("Edit one line")
        : vscode.l10n.t("Edit {0} lines", lines);
    const instruction = await vscode.window.showInputBox({
      title,
      prompt: vscode.l10n.t("What is to be changed? You see the result before anything is."),
      placeHolder: vscode.l10n.t("handle None, add type hints, rename x to total"),
    });
    if (instruction?.trim()) {
      await this.#ask({ kind: EDIT, document, range, instruction });
    }
  }

  /** Ask for the documentation or a test of the function at the cursor. */
  async forFunction(kind: Kind): Promise<void> {
    const editor = sourceEditor();
    if (editor) {
      await this.#ask({ kind, document: editor.document, range: editor.selection });
    } else {
      void vscode.window.showInformationMessage(vscode.l10n.t("Place the cursor in a function, and try again."));
    }
  }

  async accept(): Promise<void> {
    const proposal = this.#current;
    if (!proposal) {
      return;
    }
    if (proposal.writing) {
      void vscode.window.showInformationMessage(vscode.l10n.t("The proposal is still being written."));
    } else if (!proposal.place) {
      await this.#offer(
        vscode.l10n.t("The text that the proposal would replace was edited meanwhile."),
        vscode.l10n.t("Ask Again"),
        () => this.#ask(proposal.question),
      );
    } else if (proposal.document.version !== proposal.version) {
      await this.#offer(
        vscode.l10n.t("{0} was edited meanwhile.", basename(proposal.document.fileName)),
        vscode.l10n.t("Compare Again"),
        () => {
          proposal.version = proposal.document.version;
          proposal.text = proposal.document.getText();
          this.#changed.fire(proposal.before);
          this.#changed.fire(proposal.uri);
          return Promise.resolve();
        },
      );
    } else {
      await this.#apply(proposal, proposal.place);
    }
  }

  /** Close the difference; the model stops if it is still writing. */
  async discard(): Promise<void> {
    const proposal = this.#forget();
    if (proposal) {
      await closeTabs(proposal.uri);
    }
  }

  #forget(): Proposal | undefined {
    const proposal = this.#current;
    this.#current = undefined;
    proposal?.writing?.cancel();
    void vscode.commands.executeCommand("setContext", WRITING, false);
    return proposal;
  }

  async #ask(question: Question): Promise<void> {
    await this.discard();
    const title = question.kind.progress;
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    await vscode.window.withProgress(options, async (progress, token) => {
      const writing = new vscode.CancellationTokenSource();
      const cancelled = token.onCancellationRequested(() => {
        writing.cancel();
      });
      // A screen reader says each message: so there is one for each state, and none for each line.
      progress.report({ message: vscode.l10n.t("waiting for the model") });
      let shown: Promise<Proposal | undefined> | undefined;
      const grow = (partial: unknown): void => {
        const proposed = writing.token.isCancellationRequested ? undefined : readProposed(partial);
        if (!proposed) {
          return;
        }
        if (shown) {
          void shown.then((proposal) => {
            this.#grow(proposal, proposed);
          });
        } else {
          progress.report({ message: vscode.l10n.t("writing; Discard stops it") });
          shown = this.#show(question, proposed, writing);
        }
      };
      try {
        const answer = readProposed(await this.#answer(question, grow, writing.token));
        const stopped = writing.token.isCancellationRequested;
        const proposal = await (shown ?? (answer && !stopped ? this.#show(question, answer, writing) : undefined));
        if (answer && proposal && !stopped) {
          this.#grow(proposal, answer);
          this.#finish(proposal);
          progress.report({ message: vscode.l10n.t("complete; accept or discard it") });
        } else if (proposal && this.#current === proposal) {
          await this.discard(); // Stopped, or of no use: then the server has told why.
        }
      } catch (error) {
        if (!writing.token.isCancellationRequested) {
          throw error;
        }
      } finally {
        if (writing.token.isCancellationRequested) {
          await this.#closeStopped(await shown);
        }
        cancelled.dispose();
      }
    });
  }

  async #closeStopped(proposal: Proposal | undefined): Promise<void> {
    if (proposal && this.#current === proposal) {
      await this.discard();
    }
  }

  #answer(question: Question, grow: (partial: unknown) => void, token: vscode.CancellationToken): Promise<unknown> {
    const { kind, document, range, instruction } = question;
    const { start, end } = range;
    const target = { uri: this.#server.nameOf(document.uri), range: { start, end } };
    return this.#server.propose(
      kind.command,
      instruction === undefined ? target : { ...target, instruction },
      grow,
      token,
    );
  }

  /** Open the difference; undefined if the document is gone, or was edited since it was asked about. */
  async #show(
    question: Question,
    proposed: Proposed,
    writing: vscode.CancellationTokenSource,
  ): Promise<Proposal | undefined> {
    const source = question.document;
    if (source.isClosed || source.version !== proposed.version) {
      writing.cancel();
      if (!source.isClosed) {
        void this.#offer(
          vscode.l10n.t("The document was edited while the model was writing."),
          vscode.l10n.t("Ask Again"),
          () => this.#ask(question),
        );
      }
      return undefined;
    }
    const document = proposed.fileName === undefined ? source : await testDocument(source, proposed.fileName);
    const { start, end } = proposed.range;
    const range = new vscode.Range(start.line, start.character, end.line, end.character);
    const text = document.getText();
    const place =
      document === source
        ? { start: document.offsetAt(range.start), end: document.offsetAt(range.end) }
        : { start: text.length, end: text.length };
    this.#count += 1;
    // The document's own path, so that its language is recognized; the number makes each proposal a document of its own.
    const uri = document.uri.with({ scheme: SCHEME, authority: "", query: String(this.#count), fragment: "" });
    const before = uri.with({ query: `${this.#count} before` });
    const lead = document === source ? "" : separator(document);
    const { newText } = proposed;
    const { version } = document;
    const proposal = { question, document, lead, newText, before, uri, text, version, place, writing };
    this.#current = proposal;
    void vscode.commands.executeCommand("setContext", WRITING, true);
    // Where the new text's first line begins: at the range itself the view would be scrolled to the line's end.
    const below = newText.startsWith("\n") || newText.startsWith("\r\n") ? 1 : 0;
    const line = document === source ? start.line + below : document.lineCount - 1;
    const shown = new vscode.Position(line, 0);
    const options = { preview: false, selection: new vscode.Range(shown, shown) };
    const heading = `${basename(document.fileName)}: ${proposed.title}`;
    await vscode.commands.executeCommand("vscode.diff", before, uri, heading, options);
    await wrapLines(document.uri);
    return proposal;
  }

  /** Show what is written by now. */
  #grow(proposal: Proposal | undefined, proposed: Proposed): void {
    if (proposal && proposal === this.#current && proposal.writing) {
      proposal.newText = proposed.newText;
      if (proposal.document === proposal.question.document && proposal.document.version === proposed.version) {
        const { start, end } = proposed.range;
        const [from, to] = [
          new vscode.Position(start.line, start.character),
          new vscode.Position(end.line, end.character),
        ];
        proposal.place = { start: proposal.document.offsetAt(from), end: proposal.document.offsetAt(to) };
      }
      this.#changed.fire(proposal.uri);
    }
  }

  #finish(proposal: Proposal): void {
    proposal.writing = undefined;
    void vscode.commands.executeCommand("setContext", WRITING, false);
  }

  async #apply(proposal: Proposal, place: Span): Promise<void> {
    const { document } = proposal;
    const range = new vscode.Range(document.positionAt(place.start), document.positionAt(place.end));
    const text = proposal.lead + proposal.newText;
    const edit = new vscode.WorkspaceEdit();
    edit.replace(document.uri, range, text);
    this.#current = undefined;
    if (!(await vscode.workspace.applyEdit(edit))) {
      this.#current = proposal;
      throw new Error(vscode.l10n.t("The editor did not take the code: the file may be read-only"));
    }
    await closeTabs(proposal.uri);
    const end = document.positionAt(place.start + text.length);
    await reveal(document, new vscode.Range(end, end));
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

/** The active editor, unless it shows a proposal. */
function sourceEditor(): vscode.TextEditor | undefined {
  const editor = vscode.window.activeTextEditor;
  return editor?.document.uri.scheme === SCHEME ? undefined : editor;
}

/** Break long lines in the difference that was just opened: its two halves are narrow. A setting for it goes first. */
async function wrapLines(uri: vscode.Uri): Promise<void> {
  const wrap = vscode.workspace.getConfiguration("editor", uri).get("wordWrap");
  const inDifferences = vscode.workspace.getConfiguration("diffEditor", uri).get("wordWrap");
  const isShown = vscode.window.activeTextEditor?.document.uri.scheme === SCHEME;
  if (isShown && wrap === "off" && inDifferences === "inherit") {
    // Only this command does that for one editor: the active one.
    await vscode.commands.executeCommand("editor.action.toggleWordWrap");
  }
}

/** The file with the tests of a document: the one that is there, else a new one that is not saved yet. */
async function testDocument(source: vscode.TextDocument, name: string): Promise<vscode.TextDocument> {
  if (source.uri.scheme !== "file") {
    return await vscode.workspace.openTextDocument({ language: source.languageId, content: "" });
  }
  const root = vscode.workspace.getWorkspaceFolder(source.uri)?.uri.fsPath;
  for (const path of testFiles(source.uri.fsPath, root, name)) {
    if (await exists(path)) {
      return await vscode.workspace.openTextDocument(vscode.Uri.file(path));
    }
  }
  const path = await newTestFile(source.uri.fsPath, root, name, exists);
  return await vscode.workspace.openTextDocument(vscode.Uri.file(path).with({ scheme: "untitled" }));
}

async function exists(path: string): Promise<boolean> {
  try {
    await vscode.workspace.fs.stat(vscode.Uri.file(path));
    return true;
  } catch {
    return false;
  }
}

/** What stands between the end of a document and a text that is added to it: two empty lines. */
function separator(document: vscode.TextDocument): string {
  const text = document.getText();
  const end = document.eol === vscode.EndOfLine.CRLF ? "\r\n" : "\n";
  return text.trim() === "" ? "" : text.endsWith("\n") ? end.repeat(2) : end.repeat(3);
}

function shows({ input }: vscode.Tab, modified: vscode.Uri): boolean {
  return input instanceof vscode.TabInputTextDiff && input.modified.toString() === modified.toString();
}

async function closeTabs(modified: vscode.Uri): Promise<void> {
  const tabs = vscode.window.tabGroups.all.flatMap((group) => group.tabs);
  await vscode.window.tabGroups.close(tabs.filter((tab) => shows(tab, modified)));
}
