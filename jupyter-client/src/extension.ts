/** Suggestions of peft-daemon in JupyterLab, in the cells of notebooks and in text editors. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICompletionProviderManager } from "@jupyterlab/completer";
import { INotebookTracker } from "@jupyterlab/notebook";
import { Suggestions } from "./suggestions";

const plugin: JupyterFrontEndPlugin<void> = {
  id: "peft-daemon-jupyterlab:suggestions",
  description: "Ghost text by a model on this machine.",
  autoStart: true,
  requires: [ICompletionProviderManager, INotebookTracker],
  activate: (app: JupyterFrontEnd, manager: ICompletionProviderManager, notebooks: INotebookTracker): void => {
    manager.registerInlineProvider(new Suggestions(app.serviceManager.serverSettings, notebooks));
  },
};

export default plugin;
