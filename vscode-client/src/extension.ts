/** Puts the extension together: what there is, and which command does what. */
import * as vscode from "vscode";
import { switchAdapter } from "./adapters/switchAdapter";
import { type CommandLine, findCommandLine } from "./commandLine/commandLine";
import { thisMachine } from "./commandLine/machine";
import { required } from "./commandLine/peftDaemon";
import { tellOfCopilot } from "./copilot/tell";
import { Cursor } from "./cursor/cursor";
import { check } from "./doctor/doctor";
import { chooseFeedback } from "./feedback/choose";
import { DaemonSettings } from "./daemon/daemonSettings";
import { command } from "./interaction";
import { Menu } from "./menu/menu";
import { RepositoryView } from "./learning/view";
import { chooseModel } from "./model/chooseModel";
import { showMore } from "./more/showMore";
import { dismiss } from "./cursor/dismiss";
import { DOCUMENT, type Kind, Proposals, TEST } from "./proposal/proposals";
import { fileOf } from "./notebooks";
import { openReport } from "./reports/openReport";
import { LanguageServer } from "./server/languageServer";
import { NEEDS_RESTART, pipArguments, serverSettings } from "./settings";
import { readBundle } from "./setup/bundle";
import { PrivateEnvironment } from "./setup/environment";
import { offerUpdate, setUp, type SetUp, update, withExtra } from "./setup/setUp";
import { Snooze } from "./status/snooze";
import { StatusBar } from "./status/statusBar";
import { whyText } from "./status/why";
import { toggleFolder, toggleLanguage } from "./switches";
import { TextPage } from "./textPage";
import { TuneRuns } from "./tuning/run";
import { Tuning } from "./tuning/tune";

/** Set to true when the user does not want to be asked to set up. */
const DECLINED = "peftDaemon.setUpDeclined";

const FOR_FUNCTIONS: readonly Kind[] = [DOCUMENT, TEST];

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const storage = (name: string): string => vscode.Uri.joinPath(context.globalStorageUri, name).fsPath;
  const bundled = vscode.Uri.joinPath(context.extensionUri, "out", "wheel").fsPath;
  const environment = new PrivateEnvironment(storage("env"), thisMachine, () => readBundle(bundled), pipArguments);
  const log = vscode.window.createOutputChannel("peft-daemon", { log: true });
  const bar = new StatusBar();
  const snooze = new Snooze(() => {
    show();
  });
  const server = new LanguageServer(log, {
    provideInlineCompletionItems: (document, position, inline, token, next) =>
      snooze.until !== undefined && inline.triggerKind === vscode.InlineCompletionTriggerKind.Automatic
        ? []
        : next(document, position, inline, token),
    // A code action of the server's for a function: its answer is a proposal, which has to be shown.
    executeCommand: (name, args: unknown[], next): unknown => {
      const kind = FOR_FUNCTIONS.find(({ command: each }) => each === name);
      return kind ? proposals.forFunction(kind) : next(name, args);
    },
  });
  const show = (): void => {
    const active = vscode.window.activeTextEditor?.document.uri;
    bar.show(server.status, snooze.until, active && server.nameOf(active));
  };

  const find = (): Promise<CommandLine | undefined> =>
    findCommandLine(thisMachine, {
      command: serverSettings().command,
      workspaceFolder: vscode.workspace.workspaceFolders?.[0]?.uri.fsPath,
      environment: environment.folder,
    });
  const start = async (): Promise<void> => {
    const found = await find();
    await server.restart(found && { command: found, logLevel: serverSettings().logLevel });
  };
  const restart = async (): Promise<void> => {
    if (server.isRunning) {
      const options = { location: vscode.ProgressLocation.Window, title: vscode.l10n.t("peft-daemon: restarting") };
      await vscode.window.withProgress(options, () => server.execute("peft-daemon.restart"));
    } else {
      required(await find());
      await start();
    }
  };

  const cursor = new Cursor(server);
  const doctorPage = new TextPage("peft-daemon-doctor", "peft-daemon doctor");
  const whyPage = new TextPage("peft-daemon-why", "peft-daemon why");
  const proposals = new Proposals(server);
  const own: SetUp = { log, environment, find, start };
  const tuning = new Tuning(new TuneRuns(storage("tuning")), context.globalState, find, (work) => withExtra(own, work));
  const daemonSettings = new DaemonSettings(own);
  const menu = new Menu(server, snooze);
  const repositories = new RepositoryView(find, (work) => withExtra(own, work));
  const commands: Readonly<Record<string, (...args: never[]) => unknown>> = {
    ...repositories.commands,
    trigger: () => vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
    dismiss: () => dismiss(server),
    generate: () => proposals.generate(),
    editSelection: () => proposals.edit(),
    document: () => proposals.forFunction(DOCUMENT),
    test: () => proposals.forFunction(TEST),
    acceptProposal: () => proposals.accept(),
    discardProposal: () => proposals.discard(),
    switchAdapter: async () => {
      await switchAdapter(server, required(await find()));
    },
    chooseModel: () => chooseModel(own, daemonSettings),
    daemonSettings: (name?: string) => daemonSettings.choose(name),
    tune: () => tuning.tune(),
    openReport: async () => {
      await withExtra(own, openReport);
    },
    snooze: () => {
      snooze.toggle();
    },
    toggleLanguage,
    toggleFolder,
    feedback: chooseFeedback,
    restart,
    showLogs: () => {
      log.show();
    },
    doctor: async () => {
      await check(doctorPage, required(await find()));
    },
    why: async () => {
      const active = vscode.window.activeTextEditor?.document;
      const document = active?.uri.scheme === "peft-daemon-why" ? undefined : active;
      const answer = await server.execute("peft-daemon.why", document ? [server.nameOf(document.uri)] : []);
      const name = document && vscode.workspace.asRelativePath(fileOf(document));
      await whyPage.show(whyText(bar.label, answer, name));
    },
    setUp: () => setUp(own),
    update: () => offerUpdate(own),
    menu: () => menu.open(),
  };

  context.subscriptions.push(
    log,
    bar,
    snooze,
    server,
    cursor,
    doctorPage,
    whyPage,
    proposals,
    repositories,
    tuning,
    server.onStatus((status) => {
      show();
      repositories.follow([status.state === "error", server.isSetUp, status.adapter, status.learning].join("\n"));
      void vscode.commands.executeCommand("setContext", "peftDaemon.ready", status.state === "idle");
      void vscode.commands.executeCommand("setContext", "peftDaemon.setUp", server.isSetUp);
    }),
    server.onMore((where) => {
      if (snooze.until === undefined) {
        showMore(server, where);
      }
    }),
    vscode.window.onDidChangeActiveTextEditor(show),
    vscode.workspace.onDidChangeConfiguration(async (change) => {
      if (NEEDS_RESTART.some((setting) => change.affectsConfiguration(setting))) {
        await start();
      }
    }),
    vscode.extensions.onDidChange(() => tellOfCopilot(context.globalState)),
    // A trusted workspace may name the command.
    vscode.workspace.onDidGrantWorkspaceTrust(start),
    ...Object.entries(commands).map(([name, run]) => command(`peftDaemon.${name}`, log, run)),
  );
  show();
  const isCurrent = await isUpdated(own);
  await start();
  if (!isCurrent) {
    void vscode.commands.executeCommand("peftDaemon.update");
  }
  void tuning.showRunning();
  void tellOfCopilot(context.globalState);
  if (!server.isSetUp) {
    void offerSetUp(context.globalState);
  }
}

/** Whether the private environment, if there is one, has the package that this extension came with. */
async function isUpdated(own: SetUp): Promise<boolean> {
  try {
    return await update(own);
  } catch (error) {
    // What is there goes on serving.
    own.log.error(`the private environment was not updated: ${String(error)}`);
    return true;
  }
}

async function offerSetUp(memory: vscode.Memento): Promise<void> {
  if (memory.get<boolean>(DECLINED, false)) {
    return;
  }
  const [now, never] = [vscode.l10n.t("Set Up"), vscode.l10n.t("Do Not Ask Again")];
  const chosen = await vscode.window.showInformationMessage(
    vscode.l10n.t("peft-daemon is not set up yet."),
    now,
    never,
  );
  if (chosen === now) {
    await vscode.commands.executeCommand("peftDaemon.setUp");
  } else if (chosen === never) {
    await memory.update(DECLINED, true);
  }
}
