"use strict";
(() => {
  let scope;
  const shared = async (name) => {
    const [found] = Object.values(scope[name] ?? {});
    if (!found) throw new Error(`peft-daemon-jupyterlab: this JupyterLab shares no ${name}`);
    return (await found.get())();
  };
  const init = (offered) => void (scope = offered);
  const get = async () => {
    const names = ["@jupyterlab/completer","@jupyterlab/notebook","@jupyterlab/services","@jupyterlab/coreutils"];
    const modules = new Map(await Promise.all(names.map(async (each) => [each, await shared(each)])));
    const require = (each) => modules.get(each);
    const module = { exports: {} };
    "use strict";
var __defProp = Object.defineProperty;
var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
var __getOwnPropNames = Object.getOwnPropertyNames;
var __hasOwnProp = Object.prototype.hasOwnProperty;
var __export = (target, all) => {
  for (var name in all)
    __defProp(target, name, { get: all[name], enumerable: true });
};
var __copyProps = (to, from, except, desc) => {
  if (from && typeof from === "object" || typeof from === "function") {
    for (let key of __getOwnPropNames(from))
      if (!__hasOwnProp.call(to, key) && key !== except)
        __defProp(to, key, { get: () => from[key], enumerable: !(desc = __getOwnPropDesc(from, key)) || desc.enumerable });
  }
  return to;
};
var __toCommonJS = (mod) => __copyProps(__defProp({}, "__esModule", { value: true }), mod);

// src/extension.ts
var extension_exports = {};
__export(extension_exports, {
  default: () => extension_default
});
module.exports = __toCommonJS(extension_exports);
var import_completer2 = require("@jupyterlab/completer");
var import_notebook = require("@jupyterlab/notebook");

// src/suggestions.ts
var import_completer = require("@jupyterlab/completer");
var import_coreutils = require("@jupyterlab/coreutils");
var import_services = require("@jupyterlab/services");

// src/cells.ts
function cellsOf(widget, notebooks) {
  const panel = notebooks.find((each) => each.id === widget.id);
  return panel ? placeIn(panel) : editorOf(widget);
}
function placeIn(panel) {
  const { model, activeCell } = panel.content;
  if (!model || !activeCell) {
    return void 0;
  }
  const language = languageOf(model.metadata);
  const shared = [...model.cells];
  const cells = shared.map(({ type, sharedModel }) => {
    const named = type === "markdown" ? "markdown" : type === "raw" ? "plaintext" : language;
    return { language: named, code: type === "code", text: sharedModel.getSource() };
  });
  return { path: panel.context.path, cells, index: shared.indexOf(activeCell.model) };
}
function languageOf(metadata) {
  const kernel = member(metadata, "language_info", "name") ?? member(metadata, "kernelspec", "language");
  return typeof kernel === "string" ? kernel : "python";
}
function editorOf(widget) {
  const path = member(widget, "context", "path");
  return typeof path === "string" ? { path, cells: [{ language: "", code: true, text: "" }], index: 0 } : void 0;
}
function member(value, ...keys) {
  let found = value;
  for (const key of keys) {
    found = typeof found === "object" && found !== null ? Reflect.get(found, key) : void 0;
  }
  return found;
}

// src/suggestions.ts
var NOTHING = { items: [] };
var Suggestions = class {
  name = "peft-daemon";
  identifier = "peft-daemon";
  #settings;
  #notebooks;
  #running = new AbortController();
  constructor(settings, notebooks) {
    this.#settings = settings;
    this.#notebooks = notebooks;
  }
  async fetch({ text, offset }, { widget, triggerKind }) {
    const place = cellsOf(widget, this.#notebooks);
    this.#running.abort();
    if (!place) {
      return NOTHING;
    }
    this.#running = new AbortController();
    const [before, after] = [text.slice(0, offset), text.slice(offset)];
    const automatic = triggerKind === import_completer.InlineCompletionTriggerKind.Automatic;
    const question = { ...place, before, after, automatic };
    const insertText = await this.#ask(question, this.#running.signal);
    return insertText ? { items: [{ insertText }] } : NOTHING;
  }
  async #ask(question, signal) {
    const url = import_coreutils.URLExt.join(this.#settings.baseUrl, "peft-daemon", "complete");
    const request = { method: "POST", body: JSON.stringify(question), signal };
    let response;
    try {
      response = await import_services.ServerConnection.makeRequest(url, request, this.#settings);
    } catch (error) {
      if (signal.aborted) {
        return "";
      }
      throw error;
    }
    const answer = await response.json();
    if (!response.ok) {
      throw new Error(textOf(answer, "message") || response.statusText);
    }
    return textOf(answer, "text");
  }
};
function textOf(answer, key) {
  const value = typeof answer === "object" && answer !== null ? Reflect.get(answer, key) : void 0;
  return typeof value === "string" ? value : "";
}

// src/extension.ts
var plugin = {
  id: "peft-daemon-jupyterlab:suggestions",
  description: "Ghost text by a model on this machine.",
  autoStart: true,
  requires: [import_completer2.ICompletionProviderManager, import_notebook.INotebookTracker],
  activate: (app, manager, notebooks) => {
    manager.registerInlineProvider(new Suggestions(app.serviceManager.serverSettings, notebooks));
  }
};
var extension_default = plugin;

    return () => module.exports;
  };
  (window._JUPYTERLAB ??= {})["peft-daemon-jupyterlab"] = { init, get };
})();
