"""What the user refused is not shown there again, nor what would grow out of it; everything else is."""

from __future__ import annotations

import pytest
from lsprotocol import types

from peft_core.code.positions import Encoding
from peft_lsp.documents import OpenDocuments, TextPosition
from peft_lsp.refusals import MAX_REFUSED, Refusals

URI = "file:///project/demo.py"


class Scene:
    """A document in which the suggestion ``text`` was refused at a position."""

    def __init__(self, content: str, at: TextPosition, text: str) -> None:
        self.documents = OpenDocuments(Encoding.UTF16)
        self.documents.open(types.TextDocumentItem(URI, "python", 1, content))
        self.refusals = Refusals()
        self.refusals.shown(URI, at, text)
        self.refused = self.refusals.refuse(URI, at)

    def edit(self, start: TextPosition, end: TextPosition, text: str) -> None:
        change = types.TextDocumentContentChangePartial(types.Range(types.Position(*start), types.Position(*end)), text)
        identity = types.VersionedTextDocumentIdentifier(2, URI)
        self.refusals.edited(URI, self.documents.change(types.DidChangeTextDocumentParams(identity, [change])))

    def refuses(self, at: TextPosition, text: str) -> bool:
        snapshot, document = self.documents.snapshot(URI, types.Position(*at)), self.documents.get(URI)
        assert snapshot is not None
        assert document is not None
        return self.refusals.refuses(document, snapshot, text)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("sum(a)", True),
        ("sum(a)\n", True),
        ("sum(a) + sum(b)", True),
        ("sum(", True),
        ("sum(b)", False),
        ("max(a)", False),
    ],
)
def test_the_same_its_beginning_and_what_grows_out_of_it_are_refused(text: str, refused: bool) -> None:
    assert Scene("x = \n", (0, 4), "sum(a)").refuses((0, 4), text) is refused


def test_what_was_typed_of_it_changes_nothing() -> None:
    scene = Scene("x = \n", (0, 4), "sum(a)")
    scene.edit((0, 4), (0, 4), "su")
    assert scene.refuses((0, 6), "m(a)")
    assert not scene.refuses((0, 6), "per(a)")


def test_its_place_moves_with_edits_above_and_before_it() -> None:
    scene = Scene("x = \ny = \n", (1, 4), "sum(a)")
    scene.edit((0, 0), (0, 0), "import os\n")
    assert scene.refuses((2, 4), "sum(a)")
    assert not scene.refuses((1, 4), "sum(a)")
    scene.edit((2, 0), (2, 1), "total")
    assert scene.refuses((2, 8), "sum(a)")


def test_a_place_that_was_edited_away_is_forgotten() -> None:
    scene = Scene("x = tail\n", (0, 4), "sum(a)")
    scene.edit((0, 2), (0, 6), "+1")
    assert not scene.refuses((0, 4), "sum(a)")


def test_the_same_text_elsewhere_and_after_the_document_was_closed_is_shown() -> None:
    scene = Scene("x = \ny = \n", (0, 4), "sum(a)")
    assert not scene.refuses((1, 4), "sum(a)")
    scene.refusals.forget(URI)
    assert not scene.refuses((0, 4), "sum(a)")


def test_nothing_is_refused_where_nothing_is_shown() -> None:
    assert Scene("x = \n", (0, 4), "sum(a)").refused
    refusals = Refusals()
    assert not refusals.refuse(URI, (0, 4))
    refusals.shown(URI, (3, 0), "a")
    assert not refusals.refuse(URI, (0, 4)), "it is shown further down"


def test_many_refusals_are_bounded() -> None:
    scene = Scene("x = \n", (0, 4), "first")
    for number in range(MAX_REFUSED):
        scene.refusals.shown(URI, (0, 4), f"{number}.")
        scene.refusals.refuse(URI, (0, 4))
    assert not scene.refuses((0, 4), "first")
    assert scene.refuses((0, 4), "0.")
