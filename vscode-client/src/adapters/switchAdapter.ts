/** Which adapter serves a workspace folder, chosen from a list. */
import * as vscode from "vscode";
import type { CommandLine } from "../commandLine/commandLine";
import { ask } from "../commandLine/peftDaemon";
import { showWarning, tell } from "../interaction";
import type { LanguageServer } from "../server/languageServer";
import { SECTION } from "../settings";
import { type Adapter, type AdapterPick, adapterPicks, type Metrics, readAdapters, readMetrics } from "./picks";

export async function switchAdapter(server: LanguageServer, command: CommandLine): Promise<void> {
  const folders = vscode.workspace.workspaceFolders ?? [];
  const placeHolder = vscode.l10n.t("For which folder?");
  const folder = folders.length > 1 ? await vscode.window.showWorkspaceFolderPick({ placeHolder }) : folders[0];
  if (folders.length > 1 && !folder) {
    return;
  }
  const path = folder?.uri.fsPath;
  const adapters = readAdapters(await server.execute("peft-daemon.listAdapters"));
  const picked = await pick(adapters, path, command);
  if (!picked) {
    return;
  }
  if (picked.adapter === undefined && path !== undefined) {
    await ask(command, ["adapters", "unset", "--repository", path]);
  } else {
    await server.execute("peft-daemon.switchAdapter", [picked.adapter, null, path ?? null]);
  }
  warnOfSetting(folder);
}

/** Shows the list at once and each adapter's metrics as they are read. */
async function pick(
  adapters: readonly Adapter[],
  folder: string | undefined,
  command: CommandLine,
): Promise<AdapterPick | undefined> {
  const list = vscode.window.createQuickPick<AdapterPick & vscode.QuickPickItem>();
  const closed = new AbortController();
  const metrics = new Map<string, Metrics>();
  const show = (): void => {
    const active = list.activeItems[0]?.adapter;
    list.items = adapterPicks(adapters, folder, metrics);
    list.activeItems = list.items.filter((item) => item.adapter === active).slice(0, 1);
  };
  list.title = folder === undefined ? vscode.l10n.t("Adapter everywhere") : vscode.l10n.t("Adapter in {0}", folder);
  list.placeholder = vscode.l10n.t("The next suggestion uses it");
  list.matchOnDetail = true;
  list.busy = true;
  list.items = adapterPicks(adapters, folder, metrics);
  list.show();
  const reading = (async () => {
    for (const { name, digest } of adapters) {
      try {
        metrics.set(digest, readMetrics(await ask(command, ["adapters", "show", name], { signal: closed.signal })));
        show();
      } catch {
        // The list is complete without its metrics.
      }
      if (closed.signal.aborted) {
        return;
      }
    }
    list.busy = false;
  })();
  const chosen = await new Promise<AdapterPick | undefined>((resolve) => {
    list.onDidAccept(() => {
      resolve(list.selectedItems[0]);
    });
    list.onDidHide(() => {
      resolve(undefined);
    });
  });
  list.hide();
  closed.abort();
  await reading;
  list.dispose();
  return chosen;
}

/** A setting wins over every choice; who chose must hear of it. */
function warnOfSetting(folder: vscode.WorkspaceFolder | undefined): void {
  const set = vscode.workspace.getConfiguration(SECTION, folder).get<string | null>("adapter", null);
  if (set !== null) {
    void tell(
      showWarning,
      vscode.l10n.t(
        "The setting 'peft-daemon.adapter' says '{0}' and wins over this choice. Remove it to let the choice count.",
        set,
      ),
    );
  }
}
