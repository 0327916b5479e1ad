/** Where the cursor stands: the cells of a notebook in their order, or the one text of an editor. */
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";

export interface Cell {
  /** Of the notebook; the server finds out what its first line says. */
  readonly language: string;
  readonly code: boolean;
  readonly text: string;
}

export interface Place {
  /** Of the file, as the server names it. */
  readonly path: string;
  readonly cells: readonly Cell[];
  /** Number of the cell with the cursor. */
  readonly index: number;
}

interface Widget {
  readonly id: string;
}

/** The place in a widget that asks for a suggestion; undefined where there is none, such as in a console. */
export function cellsOf(widget: Widget, notebooks: INotebookTracker): Place | undefined {
  const panel = notebooks.find((each) => each.id === widget.id);
  return panel ? placeIn(panel) : editorOf(widget);
}

function placeIn(panel: NotebookPanel): Place | undefined {
  const { model, activeCell } = panel.content;
  if (!model || !activeCell) {
    return undefined;
  }
  const language = languageOf(model.metadata);
  const shared = [...model.cells];
  const cells = shared.map(({ type, sharedModel }) => {
    const named = type === "markdown" ? "markdown" : type === "raw" ? "plaintext" : language;
    return { language: named, code: type === "code", text: sharedModel.getSource() };
  });
  return { path: panel.context.path, cells, index: shared.indexOf(activeCell.model) };
}

function languageOf(metadata: Record<string, unknown>): string {
  const kernel = member(metadata, "language_info", "name") ?? member(metadata, "kernelspec", "language");
  return typeof kernel === "string" ? kernel : "python";
}

/** A text editor's file; what it is written in, the server says by its name. */
function editorOf(widget: Widget): Place | undefined {
  const path = member(widget, "context", "path");
  return typeof path === "string" ? { path, cells: [{ language: "", code: true, text: "" }], index: 0 } : undefined;
}

function member(value: unknown, ...keys: string[]): unknown {
  let found = value;
  for (const key of keys) {
    found = typeof found === "object" && found !== null ? Reflect.get(found, key) : undefined;
  }
  return found;
}
