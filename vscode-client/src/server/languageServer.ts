/** The language server: started, restarted, asked. At most one runs; without peft-daemon none does. */
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import * as vscode from "vscode";
import {
  type CancellationToken,
  CloseAction,
  type ErrorHandler,
  ExecuteCommandRequest,
  LanguageClient,
  type LanguageClientOptions,
  type Middleware,
  MessageType,
  ProgressType,
  RevealOutputChannelOn,
  ShowMessageNotification,
  State as ClientState,
  WorkDoneProgress,
} from "vscode-languageclient/node";
import { CommandFailed } from "../commandLine/answers";
import type { CommandLine } from "../commandLine/commandLine";
import { showError, showInformation, showWarning, tell } from "../interaction";
import { initializationOptions } from "../settings";
import { levelOf } from "./logLine";
import { readMore, type Where } from "../more/more";
import { gone, serverArguments, startServer } from "./serverProcess";
import { NOT_SET_UP, readStatus, STARTING, type Status, STOPPED } from "../status/status";

const PARTIAL = new ProgressType<unknown>();
const STATUS = "peft-daemon/status";
const NOT_STARTED = vscode.l10n.t("the language server did not start");
/** What is no fault, such as why a file gets no suggestions, must not look like one. */
const SHOWN_BY: Readonly<Record<number, typeof showError>> = {
  [MessageType.Error]: showError,
  [MessageType.Warning]: showWarning,
};
const MORE = "peft-daemon/more";
/** So often in three minutes a server that crashed is started again. */
const MOST_RESTARTS = 4;

export interface Start {
  readonly command: CommandLine;
  readonly logLevel: string;
}

/** Logs its errors. Its own dialogs hold a stack trace; what the user has to know is told by LanguageServer. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

export class LanguageServer implements vscode.Disposable {
  readonly #log: vscode.LogOutputChannel;
  readonly #middleware: Middleware;
  readonly #changed = new vscode.EventEmitter<Status>();
  readonly onStatus = this.#changed.event;
  readonly #grown = new vscode.EventEmitter<Where>();
  /** There is more of what the server suggested at a place. */
  readonly onMore = this.#grown.event;
  readonly #started = new vscode.EventEmitter<void>();
  /** A server takes notifications. */
  readonly onStarted = this.#started.event;
  #client: LanguageClient | undefined;
  #process: ChildProcess | undefined;
  /** The last error that the server wrote to its log. */
  #lastWords = "";
  #status = STARTING;
  /** Starts and stops, one after the other. */
  #work: Promise<void> = Promise.resolve();

  constructor(log: vscode.LogOutputChannel, middleware: Middleware) {
    this.#log = log;
    this.#middleware = middleware;
  }

  get status(): Status {
    return this.#status;
  }

  get isRunning(): boolean {
    return this.#client?.state === ClientState.Running;
  }

  /** Whether peft-daemon was found. */
  get isSetUp(): boolean {
    return this.#status !== NOT_SET_UP;
  }

  /**
   * Start a server in place of the one there is; with undefined there will be none.
   * Resolves when it has been started; the status tells when it serves.
   */
  restart(start: Start | undefined): Promise<void> {
    this.#work = this.#work.then(async () => {
      await this.#stop();
      if (start) {
        this.#start(start);
      } else {
        this.#show(NOT_SET_UP);
      }
    });
    return this.#work;
  }

  /** Tell the server something; what it cannot be told now is not worth telling later. */
  notify(method: string, params: unknown): void {
    if (this.isRunning) {
      this.#client?.sendNotification(method, params).catch((error: unknown) => {
        this.#log.debug(`${method} was not sent: ${String(error)}`);
      });
    }
  }

  /** What the server calls a document. */
  nameOf(uri: vscode.Uri): string {
    return this.#client?.code2ProtocolConverter.asUri(uri) ?? uri.toString();
  }

  /** Run one of the server's commands; throws what it answers as its error. */
  async execute(command: string, args: readonly unknown[] = []): Promise<unknown> {
    return await this.#running().sendRequest(ExecuteCommandRequest.type, { command, arguments: [...args] });
  }

  /** Run a command that proposes something: `grown` gets the proposal as far as it is written, the token stops it. */
  async propose(
    command: string,
    target: Readonly<Record<string, unknown>>,
    grown: (partial: unknown) => void,
    token: CancellationToken,
  ): Promise<unknown> {
    const client = this.#running();
    const partialResultToken = crypto.randomUUID();
    // With a token of the editor's the server shows no progress of its own.
    const workDoneToken = crypto.randomUUID();
    const listening = vscode.Disposable.from(
      client.onProgress(PARTIAL, partialResultToken, grown),
      client.onProgress(WorkDoneProgress.type, workDoneToken, () => undefined),
    );
    try {
      const params = { command, arguments: [{ ...target, partialResultToken }], workDoneToken };
      return await client.sendRequest(ExecuteCommandRequest.type, params, token);
    } finally {
      listening.dispose();
    }
  }

  dispose(): void {
    this.#changed.dispose();
    this.#grown.dispose();
    this.#started.dispose();
    void this.stop();
  }

  /** Resolves when the server has said goodbye. */
  stop(): Promise<void> {
    this.#work = this.#work.then(() => this.#stop());
    return this.#work;
  }

  #running(): LanguageClient {
    if (!this.#client || !this.isRunning) {
      throw new Error(
        !this.isSetUp
          ? vscode.l10n.t("peft-daemon is not set up. Run 'peft-daemon: Set Up'")
          : vscode.l10n.t(
              "The language server of peft-daemon does not run. Run 'peft-daemon: Restart the Daemon', or look at its logs",
            ),
      );
    }
    return this.#client;
  }

  #start({ command, logLevel }: Start): void {
    const words = [command.program, ...serverArguments(command, logLevel)];
    this.#log.info(`starting ${words.join(" ")} (from: ${command.origin})`);
    this.#lastWords = "";
    this.#show(STARTING);
    const program = async (): Promise<ChildProcess> => {
      this.#process = await startServer(command, logLevel);
      return this.#process;
    };
    const isCurrent = (): boolean => this.#client === client;
    const errorHandler: ErrorHandler = {
      // The status bar says it; a dialog for each message that could not be sent would say no more.
      error: async (...facts) => ({ ...(await fallback.error(...facts)), handled: true }),
      closed: () => (isCurrent() ? fallback.closed() : { action: CloseAction.DoNotRestart, handled: true }),
    };
    const client = new QuietClient("peft-daemon", "peft-daemon", program, this.#options(errorHandler));
    const fallback = client.createDefaultErrorHandler(MOST_RESTARTS);
    this.#client = client;
    client.onNotification(STATUS, (params: unknown) => {
      const status = readStatus(params);
      if (status && isCurrent()) {
        this.#show(status);
      }
    });
    // In place of the client's own messages, which have no buttons and are cut short.
    client.onNotification(ShowMessageNotification.type, ({ type, message }) => {
      if (isCurrent()) {
        void tell(SHOWN_BY[type] ?? showInformation, message);
      }
    });
    client.onNotification(MORE, (params: unknown) => {
      const where = readMore(params);
      if (where && isCurrent()) {
        this.#grown.fire(where);
      }
    });
    client.onDidChangeState(({ newState }) => {
      if (newState === ClientState.Running && isCurrent()) {
        this.#started.fire();
      }
      // An error that is shown already says more.
      if (newState === ClientState.Stopped && isCurrent() && this.#status.state !== "error") {
        this.#show(STOPPED);
      }
    });
    // Not waited for: a program that is no language server may never answer.
    client.start().catch(async (error: unknown) => {
      this.#log.error(`the language server did not start: ${String(error)}`);
      if (this.#process) {
        await gone(this.#process);
      }
      if (isCurrent()) {
        const why = this.#lastWords || (error instanceof Error ? error.message : String(error));
        const message = error instanceof CommandFailed ? why : `${NOT_STARTED}: ${why}`;
        this.#show({ ...STOPPED, message });
        await tell(showError, message);
      }
    });
  }

  async #stop(): Promise<void> {
    const [client, child] = [this.#client, this.#process];
    this.#client = this.#process = undefined;
    if (client?.state === ClientState.Running) {
      await client.stop().catch((error: unknown) => {
        this.#log.warn(`the language server did not stop in time: ${String(error)}`);
      });
    } else {
      child?.kill();
    }
    if (child) {
      await gone(child);
    }
    await client?.dispose().catch(() => undefined);
  }

  #options(errorHandler: ErrorHandler): LanguageClientOptions {
    const logged = (stream: NodeJS.ReadableStream): void => {
      createInterface(stream).on("line", (line) => {
        const level = levelOf(line);
        this.#lastWords = level === "error" ? line : this.#lastWords;
        this.#log[level](line);
      });
    };
    return {
      // The server follows notebooks as a whole; their cells are listed for the suggestions in them.
      documentSelector: [{ scheme: "file" }, { scheme: "untitled" }, { scheme: "vscode-notebook-cell" }],
      initializationOptions: { ...initializationOptions(), proposals: true },
      outputChannel: this.#log,
      // Nothing of it is worth the user's focus; the status bar says when something is wrong.
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      stdioOptions: { stdout: logged, stderr: logged },
      errorHandler,
      initializationFailedHandler: () => false,
      middleware: this.#middleware,
    };
  }

  #show(status: Status): void {
    this.#status = status;
    this.#changed.fire(status);
  }
}
