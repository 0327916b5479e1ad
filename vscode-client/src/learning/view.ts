/** The view of repositories and adapters in the side bar, and what its buttons do. */
import { join } from "node:path";
import { l10n } from "vscode";
import * as vscode from "vscode";
import { readAdapters } from "../adapters/picks";
import { isRecord } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { ask, required } from "../commandLine/peftDaemon";
import { showInformation } from "../interaction";
import { readKept, readLearning, readLog } from "./answers";
import { type Facts, type FolderFacts, FAILURE, failureNode, type Node, nodes } from "./nodes";

export const VIEW = "peftDaemon.repositories";
/** Does work with a command, and has packages installed that it lacks. */
type WithExtra = <T>(work: (command: CommandLine) => Promise<T>) => Promise<T | undefined>;

/**
 * Asks the command line, not the language server: it answers alike whether a daemon runs or not, and starts none for
 * that. It is asked only while the view is to be seen.
 */
export class RepositoryView implements vscode.TreeDataProvider<Node>, vscode.Disposable {
  readonly #command: () => Promise<CommandLine | undefined>;
  readonly #withExtra: WithExtra;
  readonly #changed = new vscode.EventEmitter<undefined>();
  readonly onDidChangeTreeData = this.#changed.event;
  readonly #view: vscode.TreeView<Node>;
  /** What is shown; undefined: it is asked for when the view is next to be seen. */
  #shown: Node[] | undefined;
  #seen = "";
  #refreshes = 0;

  constructor(command: () => Promise<CommandLine | undefined>, withExtra: WithExtra) {
    this.#command = command;
    this.#withExtra = withExtra;
    this.#view = vscode.window.createTreeView(VIEW, { treeDataProvider: this, showCollapseAll: true });
  }

  dispose(): void {
    this.#view.dispose();
    this.#changed.dispose();
  }

  /** What is there stays until the new is known: a button that is pressed meanwhile knows what it is about. */
  async refresh(): Promise<void> {
    this.#refreshes += 1;
    const mine = this.#refreshes;
    const fresh = this.#view.visible ? await this.#load() : undefined;
    if (mine === this.#refreshes) {
      this.#shown = fresh;
      this.#changed.fire(undefined);
    }
  }

  /** Refresh if what the status says is new; it says the same many times. */
  follow(status: string): void {
    if (status !== this.#seen) {
      this.#seen = status;
      void this.refresh();
    }
  }

  getTreeItem(node: Node): vscode.TreeItem {
    const state =
      node.children.length === 0
        ? vscode.TreeItemCollapsibleState.None
        : node.open
          ? vscode.TreeItemCollapsibleState.Expanded
          : vscode.TreeItemCollapsibleState.Collapsed;
    const item = new vscode.TreeItem(node.label, state);
    item.id = node.id;
    item.description = node.description;
    item.tooltip = node.tooltip;
    item.iconPath = new vscode.ThemeIcon(node.icon);
    item.contextValue = node.kind;
    if (node.kind === FAILURE) {
      item.command = { command: "peftDaemon.doctor", title: l10n.t("Check the Installation") };
    }
    item.accessibilityInformation = { label: node.tooltip.replaceAll("\n", ", ") };
    return item;
  }

  async getChildren(node?: Node): Promise<Node[]> {
    if (node) {
      return [...node.children];
    }
    this.#shown ??= await this.#load();
    return this.#shown;
  }

  async #load(): Promise<Node[]> {
    try {
      const command = await this.#command();
      return command ? nodes(await facts(command)) : [];
    } catch (error) {
      return [failureNode(error instanceof Error ? error.message : String(error))];
    }
  }

  /** What the buttons do; each is a command of the extension, by its name. */
  get commands(): Readonly<Record<string, (node?: Node) => unknown>> {
    const learn = (verb: string, ...options: string[]): ((node?: Node) => Promise<void>) => {
      return async (node) => {
        await this.#learn(verb, options, node);
      };
    };
    return {
      refreshRepositories: () => this.refresh(),
      learnOn: learn("on"),
      learnOff: learn("off"),
      learnNow: learn("now", "--no-wait"),
      learnPause: learn("pause"),
      learnResume: learn("resume"),
      learnRollback: (node) => this.#rollBack(node),
      learnLog: (node) => this.#showLog(node),
      useAdapter: (node) => this.#useAdapter(node),
      showAdapter: (node) => this.#showAdapter(node),
    };
  }

  async #learn(verb: string, options: readonly string[], node?: Node): Promise<void> {
    const folder = folderOf(node);
    const place = ["pause", "resume"].includes(verb) || folder === undefined ? [] : ["--repository", folder];
    const title = l10n.t("peft-daemon: one moment");
    await vscode.window.withProgress({ location: { viewId: VIEW }, title }, () =>
      this.#withExtra((command) => ask(command, ["learn", verb, ...place, ...options])),
    );
    await this.refresh();
  }

  async #rollBack(node?: Node): Promise<void> {
    await this.#learn("rollback", [], node);
    await showInformation(l10n.t("What served before serves again, from the next suggestion on."));
  }

  async #showLog(node?: Node): Promise<void> {
    const folder = folderOf(node);
    const place = folder === undefined ? [] : ["--repository", folder];
    const entries = readLog(await ask(required(await this.#command()), ["learn", "log", "--all", ...place]));
    const lines = entries.map(({ time, event, text }) => `${new Date(time).toLocaleString()}  ${event}: ${text}`);
    const content = lines.length > 0 ? lines.join("\n") : l10n.t("nothing was done yet");
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content, language: "log" }), {
      preview: true,
    });
  }

  async #useAdapter(node?: Node): Promise<void> {
    const adapter = node?.target?.adapter;
    if (node?.target === undefined || adapter === undefined) {
      await vscode.commands.executeCommand("peftDaemon.switchAdapter");
      return;
    }
    const { folder } = node.target;
    const place = folder === "" ? [] : ["--repository", folder];
    await ask(required(await this.#command()), ["adapters", "use", adapter, ...place]);
    await this.refresh();
  }

  async #showAdapter(node?: Node): Promise<void> {
    const adapter = node?.target?.adapter;
    if (adapter === undefined) {
      await vscode.commands.executeCommand("peftDaemon.switchAdapter");
      return;
    }
    const shown = await ask(required(await this.#command()), ["adapters", "show", adapter]);
    const source = isRecord(shown) && isRecord(shown["manifest"]) ? shown["manifest"]["source"] : undefined;
    const card = typeof source === "string" ? vscode.Uri.file(join(source, "README.md")) : undefined;
    const exists =
      card &&
      (await vscode.workspace.fs.stat(card).then(
        () => true,
        () => false,
      ));
    if (exists) {
      await vscode.commands.executeCommand("markdown.showPreview", card);
    } else {
      const content = JSON.stringify(shown, null, 2);
      await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content, language: "json" }));
    }
  }
}

/** The folder of a node; without one that of the active editor, or the only one. */
function folderOf(node?: Node): string | undefined {
  const document = vscode.window.activeTextEditor?.document;
  const active = document && vscode.workspace.getWorkspaceFolder(document.uri);
  return node?.target?.folder ?? (active ?? vscode.workspace.workspaceFolders?.[0])?.uri.fsPath;
}

async function facts(command: CommandLine): Promise<Facts> {
  const paths = (vscode.workspace.workspaceFolders ?? []).map(({ uri }) => uri.fsPath);
  const [folders, adapters, kept] = await Promise.all([
    Promise.all(paths.map((folder) => factsOf(command, folder))),
    ask(command, ["adapters", "list"]),
    ask(command, ["feedback", "show"]),
  ]);
  return { folders, adapters: readAdapters(adapters), kept: readKept(kept) };
}

async function factsOf(command: CommandLine, folder: string): Promise<FolderFacts> {
  const learning = readLearning(await ask(command, ["learn", "status", "--repository", folder]));
  const log = learning?.here ? readLog(await ask(command, ["learn", "log", "--repository", folder])) : [];
  return { folder, learning, log };
}
