/** Asks the server for a suggestion at the cursor; a newer request ends the one before it. */
import {
  type CompletionHandler,
  type IInlineCompletionContext,
  type IInlineCompletionList,
  type IInlineCompletionProvider,
  InlineCompletionTriggerKind,
} from "@jupyterlab/completer";
import { URLExt } from "@jupyterlab/coreutils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import { ServerConnection } from "@jupyterlab/services";
import { cellsOf, type Place } from "./cells";

const NOTHING: IInlineCompletionList = { items: [] };

interface Question extends Place {
  readonly before: string;
  readonly after: string;
  readonly automatic: boolean;
}

export class Suggestions implements IInlineCompletionProvider {
  readonly name = "peft-daemon";
  readonly identifier = "peft-daemon";
  readonly #settings: ServerConnection.ISettings;
  readonly #notebooks: INotebookTracker;
  #running = new AbortController();

  constructor(settings: ServerConnection.ISettings, notebooks: INotebookTracker) {
    this.#settings = settings;
    this.#notebooks = notebooks;
  }

  async fetch(
    { text, offset }: CompletionHandler.IRequest,
    { widget, triggerKind }: IInlineCompletionContext,
  ): Promise<IInlineCompletionList> {
    const place = cellsOf(widget, this.#notebooks);
    this.#running.abort();
    if (!place) {
      return NOTHING;
    }
    this.#running = new AbortController();
    const [before, after] = [text.slice(0, offset), text.slice(offset)];
    const automatic = triggerKind === InlineCompletionTriggerKind.Automatic;
    const question: Question = { ...place, before, after, automatic };
    const insertText = await this.#ask(question, this.#running.signal);
    return insertText ? { items: [{ insertText }] } : NOTHING;
  }

  async #ask(question: Question, signal: AbortSignal): Promise<string> {
    const url = URLExt.join(this.#settings.baseUrl, "peft-daemon", "complete");
    const request: RequestInit = { method: "POST", body: JSON.stringify(question), signal };
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, request, this.#settings);
    } catch (error) {
      if (signal.aborted) {
        return "";
      }
      throw error;
    }
    const answer: unknown = await response.json();
    if (!response.ok) {
      throw new Error(textOf(answer, "message") || response.statusText);
    }
    return textOf(answer, "text");
  }
}

function textOf(answer: unknown, key: string): string {
  const value: unknown = typeof answer === "object" && answer !== null ? Reflect.get(answer, key) : undefined;
  return typeof value === "string" ? value : "";
}
