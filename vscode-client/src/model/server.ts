/** Connects to a server that answers in place of the model here: tried first, then agreed to, then used. */
import { l10n } from "vscode";
import * as vscode from "vscode";
import { CANCELLED, CommandFailed, isRecord } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { ask } from "../commandLine/peftDaemon";
import type { DaemonSettings } from "../daemon/daemonSettings";
import { aborting } from "../interaction";
import { addressObjection, isEncrypted, needsKey, needsModel } from "./address";

interface Server {
  readonly url: string;
  readonly model: string;
  readonly description: string;
}

export async function connect(command: CommandLine, settings: DaemonSettings): Promise<void> {
  const title = l10n.t("Connect to a server");
  const url = await vscode.window.showInputBox({
    title,
    prompt: l10n.t("Its address; none of your code is sent before you agree"),
    placeHolder: "https://gpu.example.com:8000",
    ignoreFocusOut: true,
    validateInput: (typed) => addressObjection(typed.trim()),
  });
  const server = url === undefined ? undefined : await tried(command, url.trim(), "", title);
  if (!server || !(await agreed(server))) {
    return;
  }
  const model = server.model === "" ? {} : { upstream_model: server.model };
  const before = await settings.write({ upstream_url: server.url, engine: "upstream", ...model });
  await ask(command, ["upstream", "agree", "--yes"]);
  await settings.takeOver(l10n.t("{0} answers from now on.", server.url), before);
}

/** What the server is; asks for the name of a model or for a key where it wants one. Undefined: the user gave up. */
async function tried(command: CommandLine, url: string, model: string, title: string): Promise<Server | undefined> {
  const env = { PEFT_DAEMON_UPSTREAM_URL: url, ...(model === "" ? {} : { PEFT_DAEMON_UPSTREAM_MODEL: model }) };
  try {
    const found = await checked(command, env);
    const speed = l10n.t("{0}, {1}; first token after {2} ms", found.kind, found.model, found.firstTokenMs.toFixed(0));
    return { url, model, description: speed };
  } catch (error) {
    const told = error instanceof CommandFailed ? error.message : "";
    if (model === "" && needsModel(told)) {
      const named = await vscode.window.showInputBox({ title, prompt: told, ignoreFocusOut: true });
      return named ? await tried(command, url, named, title) : undefined;
    }
    if (needsKey(told)) {
      const prompt = l10n.t("The server wants a key. It is kept in this machine's keyring");
      const key = await vscode.window.showInputBox({ title, prompt, password: true, ignoreFocusOut: true });
      if (!key) {
        return undefined;
      }
      await ask(command, ["upstream", "login"], { env, stdin: `${key}\n` });
      const found = await checked(command, env);
      return { url, model, description: `${found.kind}, ${found.model}` };
    }
    throw error;
  }
}

async function checked(
  command: CommandLine,
  env: Readonly<Record<string, string>>,
): Promise<{ readonly kind: string; readonly model: string; readonly firstTokenMs: number }> {
  const title = l10n.t("peft-daemon: trying the server");
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  return await vscode.window.withProgress(options, async (_progress, token) => {
    const found = await ask(command, ["upstream", "check"], { env, signal: aborting(token) });
    if (!isRecord(found)) {
      throw new CommandFailed("cancelled", CANCELLED);
    }
    const [kind, model] = [String(found["kind"]), String(found["model"])];
    return { kind, model, firstTokenMs: Number(found["first_token_ms"]) };
  });
}

async function agreed(server: Server): Promise<boolean> {
  const detail = [
    server.description,
    "",
    l10n.t(
      "While you type, the text around the cursor, paths of files and code of other files of the workspace are sent to {0}. Files and values that look like secrets are left out.",
      server.url,
    ),
    ...(isEncrypted(server.url) ? [] : [l10n.t("The connection is NOT encrypted.")]),
  ].join("\n");
  const yes = l10n.t("Send My Code There");
  const question = l10n.t("Let {0} answer?", server.url);
  return (await vscode.window.showInformationMessage(question, { modal: true, detail }, yes)) === yes;
}
