"""The outcome of a suggestion is found from the edits that follow it, once for each suggestion."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from peft_core.api_types import Outcome
from peft_core.code.positions import Encoding, split_lines
from peft_lsp.documents import ContentChange, OpenDocument, TextPosition, position_after
from peft_lsp.suggestion_tracker import (
    LATE_ACCEPT_S,
    MIN_READING_S,
    RECHECK_AFTER_S,
    SettledSuggestion,
    SuggestionTracker,
    TrackedSuggestion,
    shift_range,
)

URI = "file:///project/demo.py"


class Scene:
    """A document with a cursor (``|`` in ``text``), its suggestions, and a clock that the test moves."""

    def __init__(self, text: str) -> None:
        before, _, after = text.partition("|")
        self.document = OpenDocument(URI, "python", 1, before + after)
        self.cursor = len(before)
        self.tracker = SuggestionTracker()
        self.now = 100.0
        self.count = 0

    def place(self, offset: int) -> TextPosition:
        return position_after((0, 0), self.document.text[:offset])

    def offer(self, text: str, *, typed: int = 0, over: int = 0) -> str:
        """Offer ``text`` at the cursor, of which ``typed`` characters stand before it; read at once."""
        self.count += 1
        overwritten = self.document.text[self.cursor : self.cursor + over]
        offer = TrackedSuggestion(str(self.count), self.place(self.cursor - typed), text, typed, overwritten)
        shown = self.tracker.show(offer, self.now)
        self.now += MIN_READING_S
        return shown

    def edit(self, start: int, end: int, text: str) -> None:
        places = [types.Position(*self.place(offset)) for offset in (start, end)]
        change = types.TextDocumentContentChangePartial(types.Range(*places), text)
        self.tracker.edited(self.document.change([change], 2, Encoding.UTF32), self.now)
        self.cursor = start + len(text)

    def type(self, text: str) -> None:
        """Type at the cursor, key by key."""
        for key in text:
            self.edit(self.cursor, self.cursor, key)

    def insert(self, text: str, *, over: int = 0) -> None:
        """One edit at the cursor."""
        self.edit(self.cursor, self.cursor + over, text)

    def outcome(self) -> tuple[Outcome, int] | None:
        """Of the one offer that ended: outcome and accepted characters."""
        if self.tracker.pending is not None or not self.tracker.settled:
            return None
        (one,) = self.tracker.settled
        return one.outcome, one.accepted

    def there(self, settled: SettledSuggestion) -> str:
        return self.document.between(settled.begin, settled.end)


def test_one_edit_that_inserts_all_of_it_accepts_it() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(\n    a)")
    scene.insert("sum(\n    a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 11)


@pytest.mark.parametrize("order", ["edit first", "command first", "command alone"])
def test_the_command_and_the_edit_count_once(order: str) -> None:
    scene = Scene("x = |\n")
    id_ = scene.offer("sum(a)")
    for step in order.split() if order != "command alone" else ["command"]:
        if step == "edit":
            scene.insert("sum(a)")
        elif step == "command":
            assert scene.tracker.accept(id_, scene.now)
    assert scene.tracker.accept(id_, scene.now)
    (one,) = scene.tracker.close(scene.now)
    assert (one.outcome, one.accepted) == (Outcome.ACCEPTED, 6)


def test_what_is_typed_along_is_not_counted_as_accepted() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.type("su")
    assert scene.outcome() is None
    scene.insert("m(a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 4)


def test_a_bracket_that_the_editor_closes_is_typing_along() -> None:
    scene = Scene("x = |\n")
    id_ = scene.offer("f(abc)")
    scene.type("f")
    scene.insert("()")
    scene.cursor -= 1
    assert scene.offer("abc)", over=1) == id_
    scene.insert("abc)", over=1)
    assert scene.outcome() == (Outcome.ACCEPTED, 4)


def test_a_bracket_with_more_behind_it_is_closed_too() -> None:
    scene = Scene("x = |\n")
    scene.offer("f(a, b)")
    scene.type("f")
    scene.insert("()")
    scene.cursor -= 1
    scene.type("a")
    assert scene.tracker.pending is not None
    scene.insert(", b)", over=1)
    assert scene.outcome() == (Outcome.ACCEPTED, 4)


def test_an_offer_that_overwrites_a_bracket_is_accepted_by_the_edit_that_does() -> None:
    scene = Scene("f(|)\n")
    scene.offer("a, b)", over=1)
    scene.insert("a, b)", over=1)
    assert scene.document.text == "f(a, b)\n"
    assert scene.outcome() == (Outcome.ACCEPTED, 5)


def test_what_is_typed_by_hand_to_the_end_is_neither_accepted_nor_rejected() -> None:
    scene = Scene("x = |\n")
    scene.offer("ab\n    c")
    scene.type("ab")
    scene.insert("\n    ")
    scene.type("c")
    assert scene.outcome() == (Outcome.TYPED, 0)


def test_the_command_tells_a_last_character_that_was_accepted_from_one_that_was_typed() -> None:
    scene = Scene("f(a|\n")
    id_ = scene.offer(")")
    scene.insert(")")
    assert scene.outcome() == (Outcome.TYPED, 0)
    scene.tracker.accept(id_, scene.now)
    assert scene.outcome() == (Outcome.ACCEPTED, 1)


def test_words_accepted_one_by_one_add_up_and_the_rest_is_partly() -> None:
    scene = Scene("x = |\n")
    scene.offer("one two three four")
    scene.insert("one ")
    scene.type("t")
    scene.insert("wo ")
    scene.type("!")
    assert scene.outcome() == (Outcome.PARTLY, 7)
    (one,) = scene.tracker.settled
    assert (one.text, scene.there(one)) == ("one two ", "one two ")


def test_words_accepted_to_the_end_are_the_whole() -> None:
    scene = Scene("x = |\n")
    scene.offer("one two")
    scene.insert("one ")
    scene.insert("two")
    assert scene.outcome() == (Outcome.ACCEPTED, 7)


def test_a_word_accepted_and_the_rest_typed_is_partly() -> None:
    scene = Scene("x = |\n")
    scene.offer("one ab")
    scene.insert("one ")
    scene.type("ab")
    assert scene.outcome() == (Outcome.PARTLY, 4)


def test_another_key_rejects_it_unless_it_came_before_anybody_could_read() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.type("m")
    assert scene.outcome() == (Outcome.REJECTED, 0)
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.now -= MIN_READING_S / 2
    scene.type("m")
    assert (scene.tracker.pending, scene.tracker.settled) == (None, [])


def test_a_new_offer_with_the_same_rest_continues_the_old_one() -> None:
    scene = Scene("x = |\n")
    id_ = scene.offer("sum(a)")
    scene.type("su")
    assert scene.offer("m(a)") == id_
    scene.insert("m(a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 4)


def test_another_text_at_the_same_place_replaces_it_and_counts_for_nothing() -> None:
    scene = Scene("x = |\n")
    old = scene.offer("sum(a)")
    assert scene.offer("max(a)") != old
    scene.insert("max(a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 6)


def test_more_of_the_same_text_is_the_same_offer() -> None:
    scene = Scene("x = |\n")
    first = scene.offer("sum(a")
    assert scene.offer("sum(a, b)") == first
    assert scene.tracker.settled == []
    scene.insert("sum(a, b)")
    assert scene.outcome() == (Outcome.ACCEPTED, 9)


def test_more_of_it_after_a_part_was_accepted_is_the_same_offer() -> None:
    scene = Scene("x = |\n")
    first = scene.offer("sum(a")
    scene.insert("sum(")
    assert scene.offer("a, b)\n") == first
    scene.insert("a, b)\n")
    assert scene.outcome() == (Outcome.ACCEPTED, 10)
    assert scene.tracker.settled[0].suggestion.text == "sum(a, b)\n"


def test_more_of_it_may_overwrite_what_the_first_did_not() -> None:
    scene = Scene("x = f(|)\n")
    first = scene.offer("sum(a")
    assert scene.offer("sum(a))", over=1) == first
    pending = scene.tracker.pending
    assert pending is not None
    assert (pending.suggestion.over, pending.over) == (")", ")")
    scene.insert("sum(a))", over=1)
    assert scene.outcome() == (Outcome.ACCEPTED, 7)


def test_a_bracket_the_editor_closed_since_is_not_what_the_first_offer_overwrote() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a")
    scene.type("sum")
    scene.insert("()")
    scene.cursor -= 1
    scene.offer("a, b)", over=1)
    pending = scene.tracker.pending
    assert pending is not None
    assert (pending.suggestion.text, pending.suggestion.over, pending.over) == ("sum(a, b)", "", ")")


def test_more_of_it_is_rejected_once() -> None:
    scene = Scene("x = |\n")
    first = scene.offer("sum(a")
    scene.offer("sum(a, b)")
    scene.insert("q")
    (one,) = scene.tracker.settled
    assert (one.suggestion.id, one.outcome, one.suggestion.shown) == (first, Outcome.REJECTED, 9)


def test_an_offer_elsewhere_rejects_it() -> None:
    scene = Scene("x = |\ny = \n")
    scene.offer("sum(a)")
    scene.cursor = len("x = \ny = ")
    scene.offer("1")
    assert [each.outcome for each in scene.tracker.settled] == [Outcome.REJECTED]
    assert scene.tracker.pending is not None


def test_edits_elsewhere_only_move_it() -> None:
    scene = Scene("x = |; z\n")
    scene.offer("sum(a)")
    cursor = scene.cursor
    scene.edit(0, 0, "import os\n\nlong = ")
    scene.edit(len(scene.document.text), len(scene.document.text), "end")
    scene.cursor = cursor + len("import os\n\nlong = ")
    scene.insert("sum(a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 6)
    assert scene.there(scene.tracker.settled[0]) == "sum(a)"


def test_deleting_what_was_typed_along_leaves_it_alive() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.type("su")
    scene.edit(scene.cursor - 1, scene.cursor, "")
    scene.insert("um(a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 5)


def test_what_is_typed_of_the_lists_choice_stands_there_already() -> None:
    scene = Scene("os.path.jo|\n")
    scene.offer("join(a)", typed=2)
    scene.edit(scene.cursor - 2, scene.cursor, "join(a)")
    assert scene.outcome() == (Outcome.ACCEPTED, 5)


def test_an_edit_in_a_form_of_the_editors_own_counts_when_the_command_says_so() -> None:
    scene = Scene("if x:\n|\n")
    id_ = scene.offer("    a = 1\n    b = 2")
    scene.insert("\ta = 1\n\tb = 2")
    assert scene.outcome() == (Outcome.REJECTED, 0)
    assert scene.tracker.accept(id_, scene.now)
    (one,) = scene.tracker.settled
    assert (one.outcome, scene.there(one)) == (Outcome.ACCEPTED, "\ta = 1\n\tb = 2")


def test_a_refused_offer_is_rejected_however_short_it_stood_there() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.tracker.dismiss(scene.now - MIN_READING_S)
    assert scene.outcome() == (Outcome.REJECTED, 0)
    scene.tracker.dismiss(scene.now)
    assert len(scene.tracker.settled) == 1


@pytest.mark.parametrize("edited_first", [True, False])
def test_another_one_that_was_inserted_in_its_place_is_the_one_that_counts(edited_first: bool) -> None:
    scene = Scene("x = |\n")
    id_ = scene.offer("sum(a)")
    other = TrackedSuggestion("other", scene.place(scene.cursor), "len(a)", 0, "")
    if edited_first:
        scene.insert("len(a)")
    scene.tracker.replace(id_, other, scene.now)
    assert scene.outcome() == (Outcome.ACCEPTED, 6)
    (one,) = scene.tracker.close(scene.now)
    assert one.suggestion == other


def test_an_unknown_offer_is_no_error() -> None:
    assert not Scene("|").tracker.accept("1", 0.0)


def test_it_is_looked_at_again_after_a_while_and_a_rejection_is_told_soon() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.insert("sum(a)")
    since = scene.now
    scene.edit(4, 7, "max")
    scene.edit(0, 0, "# a remark\n")
    scene.now += 1
    scene.cursor = len(scene.document.text)
    scene.offer("y")
    scene.type("z")
    assert scene.tracker.next_due == scene.now + LATE_ACCEPT_S
    assert scene.tracker.take_due(scene.now) == []
    (rejected,) = scene.tracker.take_due(scene.now + LATE_ACCEPT_S)
    assert rejected.outcome is Outcome.REJECTED
    assert scene.tracker.next_due == since + RECHECK_AFTER_S
    (accepted,) = scene.tracker.take_due(since + RECHECK_AFTER_S)
    assert (accepted.text, scene.there(accepted)) == ("sum(a)", "max(a)")


def test_closing_the_document_settles_everything() -> None:
    scene = Scene("x = |\n")
    scene.offer("sum(a)")
    scene.insert("sum(a)")
    scene.offer("\n")
    assert [each.outcome for each in scene.tracker.close(scene.now)] == [Outcome.ACCEPTED, Outcome.REJECTED]
    assert scene.tracker.close(scene.now) == []


letters = st.text(st.sampled_from("ab(\n"), max_size=6)
changes = st.tuples(st.integers(0, 40), st.integers(0, 40), letters)
steps = st.lists(
    st.one_of(st.tuples(st.just("offer"), st.integers(0, 40), letters), changes, st.just("take")), max_size=12
)


@given(letters, steps)
def test_whatever_happens_a_live_offer_agrees_with_the_document_and_each_ends_at_most_once(
    text: str, happenings: Sequence[object]
) -> None:
    scene = Scene(text + "|")
    ended: list[SettledSuggestion] = []
    for happening in happenings:
        size = len(scene.document.text)
        match happening:
            case ("offer", int(at), str(offered)):
                scene.cursor = min(at, size)
                if offered:
                    scene.offer(offered)
            case (int(one), int(other), str(new)):
                start, end = sorted((min(one, size), min(other, size)))
                scene.edit(start, end, new)
            case _ if scene.tracker.pending is not None:
                pending = scene.tracker.pending
                rest = pending.suggestion.text[pending.typed :]
                at = len("".join(scene.document.lines[: pending.start[0]])) + pending.start[1] + pending.typed
                scene.edit(at, at + len(pending.over), rest)
                scene.tracker.accept(pending.suggestion.id, scene.now)
        if (pending := scene.tracker.pending) is not None:
            assert (
                scene.document.between(pending.start, position_after(pending.start, pending.region)) == pending.region
            )
            assert pending.region == pending.suggestion.text[: pending.typed] + pending.over
            assert 0 <= pending.accepted <= pending.typed < len(pending.suggestion.text)
        for each in scene.tracker.settled:
            assert (0, 0) <= each.begin <= each.end <= scene.place(len(scene.document.text))
        scene.now += 7.0
        ended += scene.tracker.take_due(scene.now)
    ended += scene.tracker.close(scene.now)
    assert len({each.suggestion.id for each in ended}) == len(ended)
    assert all(0 <= each.accepted <= len(each.suggestion.text) for each in ended)


@given(letters, letters, letters, st.lists(changes, max_size=8))
def test_a_range_holds_exactly_what_is_left_of_its_text_and_what_took_the_place_of_some_of_it(
    before: str, text: str, after: str, edits: Sequence[tuple[int, int, str]]
) -> None:
    # The model: each character knows whether it belongs to the range.
    characters = [(c, False) for c in before] + [(c, True) for c in text] + [(c, False) for c in after]
    begin = position_after((0, 0), before)
    end = position_after(begin, text)
    for one, other, new in edits:
        start, stop = sorted((min(one, len(characters)), min(other, len(characters))))
        if not any(mine for _, mine in characters):
            break
        inside = [index for index, (_, mine) in enumerate(characters) if mine]
        belongs = start <= inside[-1] and stop > inside[0]
        whole = "".join(c for c, _ in characters)
        edit = ContentChange(position_after((0, 0), whole[:start]), position_after((0, 0), whole[:stop]), new)
        characters[start:stop] = [(c, belongs) for c in new]
        begin, end = shift_range(begin, end, edit)
        whole = "".join(c for c, _ in characters)
        lines = split_lines(whole)
        offsets = [sum(map(len, lines[:line])) + offset for line, offset in (begin, end)]
        found = [index for index, (_, mine) in enumerate(characters) if mine]
        if found:
            assert offsets == [found[0], found[-1] + 1]
        else:
            assert offsets[0] == offsets[1]
