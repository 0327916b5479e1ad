"""Open documents, snapshots of them, and the folders of the workspace.

A document is a list of lines: an edit or a request touches only the lines around it, so a keystroke in a 20 MB file
costs no more than one in a small file. A request works on a ``DocumentSnapshot``, which no later edit changes. Only
text that the editor sent is known; no file is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsprotocol import types
from pygls.uris import to_fs_path

from peft_core.code.languages import language_id
from peft_core.code.positions import Encoding, content, split_lines, to_column, to_offset
from peft_core.paths import MAX_PATH_CHARS

MAX_DOCUMENT_KEY_CHARS = 4096
"""Longest key of a document that the daemon takes."""
MAX_LANGUAGE_CHARS = 200
"""Longest name of a language that it takes."""
MAX_PREFIX_CHARS = 64 * 1024
"""Most characters before the cursor in a request; a model's context is smaller than that."""
MAX_SUFFIX_CHARS = 32 * 1024
"""Most characters after the cursor in a request."""


TextPosition = tuple[int, int]
"""Number of the line, and of the characters before the position on it; both from 0."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class DocumentSnapshot:
    """A document at the moment of a request, cut to the text around the cursor.

    ``prefix`` and ``suffix`` have ``\n`` at the end of every line; the document's own line end is ``eol``.
    """

    uri: str
    version: int
    language: str
    prefix: str
    suffix: str
    line: int
    """Number of the cursor's line."""
    text: str
    """The cursor's line, without its end."""
    offset: int
    """Characters of the cursor's line before the cursor."""
    eol: str
    encoding: Encoding
    file_uri: str
    """URI of the file that the document is, or is a part of."""
    foreign_suffix: int = 0
    """Characters at the end of ``suffix`` that belong to other documents, which no suggestion overwrites."""

    @property
    def path(self) -> str | None:
        """Path of the file on this machine; None for one that is unsaved, remote, or refused by the daemon."""
        path = to_fs_path(self.file_uri) if self.file_uri.startswith("file:") else None
        return path if path is not None and len(path) <= MAX_PATH_CHARS else None

    def replaced(self, characters: int) -> str:
        """Return the text that a suggestion overwrites: so many characters after the cursor, of this document."""
        own = len(self.suffix) - self.foreign_suffix
        return self.suffix[: min(max(characters, 0), own)]

    @property
    def real_path(self) -> str | None:
        """The same with the real folder in place of links to it, by which the daemon knows a repository's adapter."""
        return None if self.path is None else real_path(self.path)

    @property
    def is_empty_or_binary(self) -> bool:
        """Whether there is nothing to complete: the document is empty or not text."""
        return not (self.prefix or self.suffix) or "\0" in self.prefix or "\0" in self.suffix

    @property
    def word_follows(self) -> bool:
        """Whether the cursor is before or inside a word, where typing nearly always edits that word."""
        return begins_with_word(self.suffix)

    def position(self, offset: int) -> types.Position:
        """Return the position ``offset`` characters into the cursor's line."""
        return types.Position(self.line, to_column(self.text, offset, self.encoding))

    @property
    def end_of_line(self) -> types.Position:
        """The position at the end of the cursor's line."""
        return self.position(len(self.text))

    def after(self, characters: int) -> types.Position:
        """Return the position ``characters`` of ``suffix`` after the cursor."""
        passed = self.replaced(characters)
        if "\n" not in passed:
            return self.position(self.offset + len(passed))
        last = passed.rpartition("\n")[2]
        return types.Position(self.line + passed.count("\n"), to_column(last, len(last), self.encoding))

    def before_cursor(self, span: types.Range) -> str | None:
        """Return the text of a range that ends at the cursor and begins on its line; None for any other range."""
        start = to_offset(self.text, span.start.character, self.encoding)
        if span.start.line != self.line or span.end != self.position(self.offset) or start > self.offset:
            return None
        return self.text[start : self.offset]

    def with_line_ends(self, text: str) -> str:
        """Give text for insertion the line ends of this document."""
        return text if self.eol == "\n" else text.replace("\n", self.eol)


@dataclass(frozen=True)
class ContentChange:
    """One change of a document, without unchanged text at its ends; line ends are ``\n``.

    Positions are those before the change.
    """

    start: TextPosition
    end: TextPosition
    text: str


class OpenDocument:
    """One open document; changed in place by the editor's edits."""

    def __init__(self, uri: str, language: str, version: int, text: str) -> None:
        self.uri, self.version = uri, version
        self.lines = split_lines(text)
        self._language = language

    @property
    def language(self) -> str:
        """The usual id of its language."""
        return self._language

    @property
    def file_uri(self) -> str:
        """URI of the file that it is, or is a part of."""
        return self.uri

    def model_lines(self, cursor_line: int) -> Sequence[str]:
        """Return its lines as the model reads them; the cursor's line is unchanged, and so is their number."""
        return self.lines

    def surroundings(self, room_above: int, room_below: int) -> tuple[str, str]:
        """Return the text that the model reads above and below the document, of at most so many characters."""
        return "", ""

    @property
    def text(self) -> str:
        """The whole text; takes time in proportion to its length."""
        return "".join(self.lines)

    def locate(self, position: types.Position, encoding: Encoding) -> tuple[int, int]:
        """Convert a position of the editor's; a position outside the document becomes the nearest one in it."""
        if position.line >= len(self.lines):
            last = len(self.lines) - 1
            return last, len(self.lines[last])
        return position.line, to_offset(content(self.lines[position.line]), position.character, encoding)

    def change(
        self, changes: Sequence[types.TextDocumentContentChangeEvent], version: int, encoding: Encoding
    ) -> Sequence[ContentChange]:
        """Apply edits in order, each relative to the text after the one before it; returns what they changed."""
        edits = []
        for edit in changes:
            if isinstance(edit, types.TextDocumentContentChangePartial):
                start = self.locate(edit.range.start, encoding)
                end = max(start, self.locate(edit.range.end, encoding))
                edits.append(_smallest_change(start, self.between(start, end), edit.text))
                self._replace(start, end, edit.text)
            else:
                edits.append(self._replace_all(edit.text))
        self.version = version
        return edits

    def _replace_all(self, text: str) -> ContentChange:
        before, self.lines = self.text, []  # the lines of a large document are not held twice
        change = _smallest_change((0, 0), before, text)
        del before
        self.lines = split_lines(text)
        return change

    def _replace(self, start: TextPosition, end: TextPosition, text: str) -> None:
        first, last = start[0], end[0]
        text = self.lines[first][: start[1]] + text + self.lines[last][end[1] :]
        if first and text.startswith("\n") and self.lines[first - 1].endswith("\r"):
            first -= 1  # the two become one line end
            text = self.lines[first] + text
        pieces = split_lines(text)
        self.lines[first : last + 1] = pieces if last == len(self.lines) - 1 else pieces[:-1]

    def selected(self, span: types.Range, encoding: Encoding) -> tuple[tuple[int, int], str]:
        """Return where the text of a range begins, and that text, without the white space around it."""
        start = self.locate(span.start, encoding)
        text = self.between(start, max(start, self.locate(span.end, encoding)))
        inner = text.lstrip()
        return position_after(start, text[: len(text) - len(inner)]), inner.rstrip()

    def after(self, start: TextPosition, text: str, encoding: Encoding) -> DocumentSnapshot:
        """Take a snapshot with the cursor behind ``text``, which begins at ``start``."""
        return self.around(*position_after(start, text), encoding)

    def between(self, start: TextPosition, end: TextPosition) -> str:
        """Return the text from one position to another."""
        if start[0] == end[0]:
            return self.lines[start[0]][start[1] : end[1]]
        inner = self.lines[start[0] + 1 : end[0]]
        return "".join((self.lines[start[0]][start[1] :], *inner, self.lines[end[0]][: end[1]]))

    def snapshot(self, position: types.Position, encoding: Encoding) -> DocumentSnapshot:
        """Take a snapshot with the cursor at ``position``."""
        return self.around(*self.locate(position, encoding), encoding)

    def at_end_of_line(self, number: int, encoding: Encoding) -> DocumentSnapshot:
        """Take a snapshot with the cursor at the end of a line."""
        return self.around(number, len(content(self.lines[number])), encoding)

    def around(self, number: int, offset: int, encoding: Encoding) -> DocumentSnapshot:
        """Take a snapshot with the cursor ``offset`` characters into a line."""
        lines, line = self.model_lines(number), self.lines[number]
        before = [line[:offset][-MAX_PREFIX_CHARS:]]
        room_above = MAX_PREFIX_CHARS - len(before[0])
        for index in range(number - 1, -1, -1):
            room_above -= len(lines[index])
            if room_above < 0:
                break
            before.append(lines[index])
        after = [line[offset : offset + MAX_SUFFIX_CHARS]]
        room_below = MAX_SUFFIX_CHARS - len(after[0])
        for index in range(number + 1, len(lines)):
            room_below -= len(lines[index])
            if room_below < 0:
                break
            after.append(lines[index])
        above, below = (model_text(each) for each in self.surroundings(room_above, room_below))
        return DocumentSnapshot(
            uri=self.uri,
            version=self.version,
            language=self.language,
            prefix=above + model_text("".join(reversed(before))),
            suffix=model_text("".join(after)) + below,
            line=number,
            text=content(line),
            offset=offset,
            eol=_line_end(line) or _line_end(self.lines[max(number - 1, 0)]) or "\n",
            encoding=encoding,
            file_uri=self.file_uri,
            foreign_suffix=len(below),
        )


class OpenDocuments:
    """The documents the editor has open."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._open: dict[str, OpenDocument] = {}

    def open(self, item: types.TextDocumentItem) -> None:
        """Add a document with the text that the editor shows."""
        self.add(OpenDocument(item.uri, language_id(item.language_id), item.version, item.text))

    def add(self, document: OpenDocument) -> None:
        """Add a document, in place of one with the same URI."""
        self._open[document.uri] = document

    def change(self, params: types.DidChangeTextDocumentParams) -> Sequence[ContentChange]:
        """Apply the editor's edits and return them; those of a document that is not open are ignored."""
        document = self._open.get(params.text_document.uri)
        if document is None:
            return ()
        return document.change(params.content_changes, params.text_document.version, self.encoding)

    def file_uri(self, uri: str) -> str:
        """Return the URI of the file that a document is, or is a part of."""
        document = self._open.get(uri)
        return document.file_uri if document else uri

    def close(self, uri: str) -> None:
        """Forget a document."""
        self._open.pop(uri, None)

    def __iter__(self) -> Iterator[OpenDocument]:
        return iter(self._open.values())

    def get(self, uri: str) -> OpenDocument | None:
        """Return the document if it is open."""
        return self._open.get(uri)

    def snapshot(self, uri: str, position: types.Position) -> DocumentSnapshot | None:
        """Take a snapshot with the cursor at ``position``; None when the document is not open."""
        document = self._open.get(uri)
        return document.snapshot(position, self.encoding) if document else None

    def is_current(self, snapshot: DocumentSnapshot) -> bool:
        """Return whether the document has not changed since the snapshot."""
        document = self._open.get(snapshot.uri)
        return document is not None and document.version == snapshot.version


class WorkspaceFolders:
    """The folders of the editor's workspace that are on this machine.

    The daemon may read source files in them for context, and in no other folders.
    """

    def __init__(self, uris: Iterable[str] = ()) -> None:
        self._paths: dict[str, Path] = {}
        self.change((), uris)

    def change(self, removed: Iterable[str], added: Iterable[str]) -> None:
        """Close some folders and open others, both by their URIs."""
        for uri in removed:
            self._paths.pop(uri, None)
        for uri in added:
            path = to_fs_path(uri) if uri.startswith("file:") else None
            if path is not None and len(path) <= MAX_PATH_CHARS:
                self._paths[uri] = Path(path)

    @property
    def paths(self) -> list[str]:
        """The folders, as absolute paths."""
        return [str(path) for path in self._paths.values()]

    def around(self, path: str | None) -> str | None:
        """Return the innermost folder with this file in it, as an absolute path; None without one."""
        if path is None:
            return None
        above = Path(path).parents
        found = [folder for folder in self._paths.values() if folder in above]
        return str(max(found, key=lambda folder: len(folder.parts))) if found else None


def _smallest_change(start: TextPosition, removed: str, text: str) -> ContentChange:
    """Reduce an edit to what it changes, without equal text at its ends."""
    removed, text = normalize_line_ends(removed), normalize_line_ends(text)
    same = _common_prefix_length(removed, text)
    start = position_after(start, removed[:same])
    removed, text = removed[same:], text[same:]
    same = _common_suffix_length(removed, text)
    removed, text = removed[: len(removed) - same], text[: len(text) - same]
    return ContentChange(start, position_after(start, removed), text)


def _common_prefix_length(one: str, other: str) -> int:
    """Count the characters both begin with, by binary search, which is fast also for whole documents."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_suffix_length(one: str, other: str) -> int:
    """Count the characters both end with, in the same way."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def normalize_line_ends(text: str) -> str:
    """Return the text with ``\n`` at the end of every line."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def position_after(start: TextPosition, text: str) -> tuple[int, int]:
    """Return the position behind a text that begins at ``start``."""
    pieces = split_lines(text)
    return start[0] + len(pieces) - 1, len(pieces[-1]) + (start[1] if len(pieces) == 1 else 0)


def _line_end(line: str) -> str:
    return line[len(content(line)) :]


def model_text(text: str) -> str:
    """Return a text as the model may see it: with ``\n`` line ends, and without lone surrogates."""
    text = normalize_line_ends(text)
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def shift_position(position: TextPosition, edit: ContentChange) -> TextPosition:
    """Return where a position is after an edit that does not span it."""
    if position < edit.end:
        return position
    line, offset = position_after(edit.start, edit.text)
    if position[0] == edit.end[0]:
        return line, offset + position[1] - edit.end[1]
    return position[0] + line - edit.end[0], position[1]


def real_path(path: str) -> str:
    """Return a file's path with the real folder in place of links to it; the same path where that is too long."""
    folder, name = os.path.split(path)
    real = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118  (pathlib is slow, and this runs per key)
    return real if len(real) <= MAX_PATH_CHARS else path


def begins_with_word(text: str) -> bool:
    """Return whether a text begins with a character of a word."""
    return text[:1].isalnum() or text[:1] == "_"
