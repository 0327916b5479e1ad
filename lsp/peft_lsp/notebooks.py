"""Notebooks: a cell is a document whose surroundings are the cells before and after it, in the notebook's order.

All else treats a cell as any other document: it has a text, positions and edits of its own. Its file is the notebook,
so its path, its folder and its settings are the notebook's. An editor that does not synchronize notebooks may open
cells as plain documents; each then stands alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lsprotocol import types

from peft_core.code import notebook as cells
from peft_core.code.languages import language_id
from peft_core.code.positions import Encoding
from peft_lsp.documents import ContentChange, OpenDocument


class OpenCell(OpenDocument):
    """One open cell of a notebook."""

    def __init__(self, item: types.TextDocumentItem, notebook: Notebook) -> None:
        super().__init__(item.uri, language_id(item.language_id), item.version, item.text)
        self._notebook = notebook
        self._shown: tuple[str, str] | None = None
        """The language that it was shown in last, and how."""

    @property
    def language(self) -> str:
        """Its own language: that of its magic, else the one that the editor says."""
        return cells.cell_language(self.lines, self._language)

    @property
    def file_uri(self) -> str:
        """URI of its notebook."""
        return self._notebook.uri

    def change(
        self, changes: Sequence[types.TextDocumentContentChangeEvent], version: int, encoding: Encoding
    ) -> Sequence[ContentChange]:
        """Apply edits."""
        self._shown = None
        return super().change(changes, version, encoding)

    def model_lines(self, cursor_line: int) -> Sequence[str]:
        """Return its lines, those for IPython as comments."""
        return cells.without_magics(self.lines, self._language, cursor_line)

    def surroundings(self, room_above: int, room_below: int) -> tuple[str, str]:
        """Return the other cells of the notebook, in its order."""
        above, below = self._notebook.around(self)
        reader = self.language
        return (
            cells.text_above((each.as_context(reader) for each in above), room_above),
            cells.text_below((each.as_context(reader) for each in below), room_below),
        )

    def as_context(self, reader: str) -> str:
        """Return the cell as it is shown around a cell in the language ``reader``."""
        if self._shown is None or self._shown[0] != reader:
            is_code = self._notebook.is_code(self.uri)
            self._shown = (reader, cells.as_context(self.lines, self._language, reader, is_code=is_code))
        return self._shown[1]

    def forget_shown(self) -> None:
        """Note that something else of the cell than its text has changed."""
        self._shown = None


class Notebook:
    """One open notebook: its cells in their order."""

    def __init__(self, document: types.NotebookDocument, texts: Iterable[types.TextDocumentItem]) -> None:
        self.uri = document.uri
        self._order = list(document.cells)
        self._cells: dict[str, OpenCell] = {}
        self.add(texts)

    @property
    def cells(self) -> list[OpenCell]:
        """The open cells in their order."""
        return [self._cells[each.document] for each in self._order if each.document in self._cells]

    def is_code(self, uri: str) -> bool:
        """Return whether a cell has code, and not prose."""
        return any(each.document == uri and each.kind == types.NotebookCellKind.Code for each in self._order)

    def around(self, cell: OpenCell) -> tuple[Iterator[OpenCell], Iterator[OpenCell]]:
        """Return the cells above one, from it upwards, and those below it, downwards."""
        ordered = self.cells
        index = ordered.index(cell) if cell in ordered else len(ordered)
        return reversed(ordered[:index]), iter(ordered[index + 1 :])

    def add(self, texts: Iterable[types.TextDocumentItem]) -> list[OpenCell]:
        """Open cells with their texts; returns them."""
        added = [OpenCell(item, self) for item in texts]
        self._cells.update((each.uri, each) for each in added)
        return added

    def remove(self, uris: Iterable[str]) -> list[str]:
        """Close cells; returns the URIs of those that were open."""
        return [uri for uri in uris if self._cells.pop(uri, None) is not None]

    def rearrange(self, change: types.NotebookCellArrayChange) -> None:
        """Replace some of the cells in the order."""
        start = max(change.start, 0)
        self._order[start : start + max(change.delete_count, 0)] = change.cells or ()

    def update(self, changed: Iterable[types.NotebookCell]) -> None:
        """Take new kinds of cells."""
        by_uri = {each.document: each for each in changed}
        self._order = [by_uri.get(each.document, each) for each in self._order]
        for uri in by_uri:
            if uri in self._cells:
                self._cells[uri].forget_shown()


class OpenNotebooks:
    """The notebooks that the editor has open."""

    def __init__(self) -> None:
        self._open: dict[str, Notebook] = {}

    def open(self, params: types.DidOpenNotebookDocumentParams) -> Notebook:
        """Add a notebook with the cells that the editor shows."""
        opened = Notebook(params.notebook_document, params.cell_text_documents)
        self._open[opened.uri] = opened
        return opened

    def get(self, uri: str) -> Notebook | None:
        """Return the notebook if it is open."""
        return self._open.get(uri)

    def close(self, uri: str) -> Notebook | None:
        """Forget a notebook; returns it if it was open."""
        return self._open.pop(uri, None)
