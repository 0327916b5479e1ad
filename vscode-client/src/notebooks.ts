/** A notebook's cell is a document of its own; its file, its folder and its settings are the notebook's. */
import * as vscode from "vscode";

/** The notebook that a document is a cell of. */
export function notebookOf(document: vscode.TextDocument): vscode.NotebookDocument | undefined {
  return vscode.workspace.notebookDocuments.find((each) => each.getCells().some((cell) => cell.document === document));
}

/** The address of the file that a document is, or is a cell of. */
export function fileOf(document: vscode.TextDocument): vscode.Uri {
  return notebookOf(document)?.uri ?? document.uri;
}

/** Show a place of a document; a cell is shown in its notebook. */
export async function reveal(document: vscode.TextDocument, selection: vscode.Range): Promise<void> {
  const notebook = notebookOf(document);
  if (!notebook) {
    await vscode.window.showTextDocument(document, { selection, preview: false });
    return;
  }
  const index = notebook.getCells().findIndex((cell) => cell.document === document);
  const selections = [new vscode.NotebookRange(index, index + 1)];
  await vscode.window.showNotebookDocument(notebook, { selections, preview: false });
}
