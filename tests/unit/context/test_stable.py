"""When the chunks of a document change."""

from __future__ import annotations

from peft_core.api_types import ContextChunk
from peft_daemon.context.repository import StableContext

OLD = (ContextChunk("a.py", "one\ntwo"), ContextChunk("b.py", "three\nfour"))
NEW = (ContextChunk("c.py", "five\nsix"),)


def test_what_was_found_is_shown_only_once_it_is_adopted() -> None:
    state = StableContext().offered(OLD)
    assert state.shown == ()
    assert state.adopted().shown == OLD
    assert state.adopted().offered(NEW).shown == OLD
    assert state.adopted().offered(NEW).adopted().shown == NEW


def test_another_order_or_a_part_of_what_is_shown_is_no_reason_to_read_the_prompt_again() -> None:
    state = StableContext().offered(OLD).adopted()
    assert state.offered(OLD[::-1]).adopted().shown == OLD
    assert state.offered(OLD[:1]).adopted().shown == OLD
    assert state.offered((OLD[0], ContextChunk("c.py", "five\nsix"))).adopted().shown == OLD


def test_what_is_mostly_new_is_adopted() -> None:
    found = (OLD[0], ContextChunk("c.py", "five\nsix\nseven\neight"))
    assert StableContext().offered(OLD).adopted().offered(found).adopted().shown == found


def test_the_same_lines_of_another_file_are_new() -> None:
    found = (ContextChunk("z.py", "one\ntwo"),)
    assert StableContext().offered(OLD).adopted().offered(found).adopted().shown == found


def test_adopting_without_anything_found_changes_nothing_and_finding_nothing_keeps_what_is_shown() -> None:
    state = StableContext().offered(OLD).adopted()
    assert state.adopted() == state
    assert state.offered(()).adopted().shown == OLD
