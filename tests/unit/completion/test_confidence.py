"""What the model is unsure of is left out: the whole suggestion, its later lines, or the rest of its line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_engines import PacedEngine, Piece
from peft_core.api_types import Eagerness, FinishReason
from peft_core.code.document import Document
from peft_core.settings import Settings
from peft_daemon.completion import formats
from peft_daemon.completion.confidence import WrittenToken, evidence, points, probability, sure_part
from peft_daemon.completion.eagerness import LEAST
from peft_daemon.completion.job import CompletionJob, Limits
from peft_daemon.completion.scheduler import Deadlines, Scheduler
from peft_daemon.completion.stream import Completer, Completion, StreamStats

SURE, UNSURE = -0.01, -8.0
MEDIUM = LEAST[Eagerness.MEDIUM]


def written(*pieces: tuple[str, float | None]) -> tuple[str, list[WrittenToken]]:
    """A text and its tokens."""
    text, tokens = "", []
    for piece, logprob in pieces:
        tokens.append(WrittenToken(len(text), len(text) + len(piece), logprob))
        text += piece
    return text, tokens


def test_a_likely_text_has_a_high_confidence_and_an_unlikely_one_a_low_one() -> None:
    _, likely = written(("return", SURE), (" width", SURE), (" *", None), (" height", SURE))
    _, unlikely = written(("return", SURE), (" width", UNSURE), (" *", None), (" height", SURE))
    high, low = probability(evidence(likely, 0, 21)), probability(evidence(unlikely, 0, 21))
    assert high is not None
    assert low is not None
    assert high > LEAST[Eagerness.LOW] > LEAST[Eagerness.MEDIUM] > LEAST[Eagerness.HIGH] > low


def test_an_engine_that_tells_nothing_is_neither_sure_nor_unsure() -> None:
    text, tokens = written(("return", None), (" width", None))
    assert probability(evidence(tokens, 0, len(text))) is None
    assert sure_part(text, tokens, 0, Document("", ""), least=MEDIUM, over=True) == (len(text), None)


def test_what_was_typed_since_counts_no_more() -> None:
    text, tokens = written(("wid", UNSURE), ("th", SURE))
    assert evidence(tokens, 3, len(text)).total == SURE
    assert evidence(tokens, 1, len(text)).total == pytest.approx(UNSURE * 2 / 3 + SURE), "half a token was typed"


@pytest.mark.parametrize(
    ("before", "text", "ends"),
    [
        ("x = ", "store.items", ["store", "store.items"]),
        ("x = ", "load(path, mode)", ["load", "load(path, mode)"]),
        ("x = ", 'f("a b", c) + d', ["f", 'f("a b", c)', 'f("a b", c) + d']),
        ("load(", "path, mode)", ["path", "path, mode", "path, mode)"]),
        ("x = ", "[a, b", ["[a, b"]),
        ("if x", ":\n    return 1\n    pass", [":", ":\n    return 1", ":\n    return 1\n    pass"]),
        ("x = ", "f(\n    a,\n)\ny", ["f", "f(\n    a,\n)", "f(\n    a,\n)\ny"]),
        ("d = ", "{\n    1: 2,\n", ["{", "{\n    1: 2,", "{\n    1: 2,\n"]),
        ('x = "', 'left and right"', ["left", "left and", "left and right", 'left and right"']),
    ],
)
def test_a_suggestion_ends_behind_a_line_or_a_whole_expression(before: str, text: str, ends: list[str]) -> None:
    assert [text[:at] for at in points(text, Document(before, ""), over=True)] == ends


def test_a_word_that_may_go_on_is_no_end() -> None:
    assert points("store.ite", Document("x = ", ""), over=False) == [len("store")]


@given(
    st.lists(st.tuples(st.text("ab.()\n \"'", min_size=1, max_size=4), st.one_of(st.none(), st.floats(-9, 0)))),
    st.booleans(),
    st.sampled_from([0.1, 0.4, 0.9]),
)
def test_more_eagerness_never_shows_less(pieces: list[tuple[str, float | None]], over: bool, least: float) -> None:
    text, tokens = written(*pieces)
    document = Document("x = ", "")
    eager, _ = sure_part(text, tokens, 0, document, least=least / 2, over=over)
    strict, _ = sure_part(text, tokens, 0, document, least=least, over=over)
    assert 0 <= strict <= eager <= len(text)
    assert sure_part(text, tokens, 0, document, least=0.0, over=over) == (len(text), None)


class Desk:
    """A completer whose engine writes given pieces."""

    def __init__(self, *pieces: Piece, at_once: int | None = None) -> None:
        self.engine = PacedEngine(lambda _: pieces, at_once=len(pieces) if at_once is None else at_once)
        if at_once is None:
            self.engine.go.set()
        self.completer = Completer(self.engine, Scheduler(1), Limits(Settings()), lambda _: None)

    async def ask(
        self, source: str, *, least: float = MEDIUM, show_after_s: float | None = None
    ) -> tuple[Completion, Sequence[str]]:
        """Return the completion at ``‸``, and what was given before it."""
        prefix, _, suffix = source.partition("‸")
        job = CompletionJob(
            document=Document(prefix, suffix),
            document_key="d",
            format=formats.get("qwen-fim-v1"),
            context_tokens=1024,
            max_tokens=64,
            least_confidence=least,
        )
        given = []
        deadlines = Deadlines(asyncio.get_running_loop().time(), display_s=show_after_s)
        async with aclosing(self.completer.run(job, StreamStats(), deadlines)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    return part, given
                given.append(part)
        raise AssertionError


AREA = "def area(width, height):\n    ‸\n"


async def test_a_sure_suggestion_is_shown_with_its_confidence() -> None:
    end, _ = await Desk(("return", SURE), (" width", SURE), (" *", SURE), (" height", SURE)).ask(AREA)
    assert end.text == "return width * height"
    assert end.confidence is not None
    assert end.confidence > MEDIUM
    assert end.doubt is None


async def test_a_suggestion_that_is_unsure_from_its_beginning_is_not_shown() -> None:
    pieces = ("raise", UNSURE), (" Value", UNSURE), ("Error", SURE)
    end, given = await Desk(*pieces).ask(AREA)
    assert (end.text, end.reason, given) == ("", FinishReason.EMPTY, [])
    assert end.doubt is not None
    assert end.doubt < MEDIUM
    shown, _ = await Desk(*pieces).ask(AREA, least=0.0)
    assert shown.text == "raise ValueError", "who asks by hand sees it"


async def test_the_unsure_rest_of_a_line_is_left_out() -> None:
    end, _ = await Desk(("self", SURE), (".store", SURE), (".add", UNSURE), ("(x)", SURE)).ask("x = ‸\n")
    assert end.text == "self.store"


async def test_a_fragment_is_not_shown_while_the_model_writes_on() -> None:
    desk = Desk(("load", SURE), ("(path", SURE), (", mode", SURE), (")", SURE), at_once=3)
    part, _ = await desk.ask("x = ‸\n", show_after_s=0.0)
    assert (part.text, part.more) == ("load", True), "an open bracket is no end"
    desk.engine.go.set()
    whole, _ = await desk.ask("x = ‸\n")
    assert (whole.text, whole.more) == ("load(path, mode)", False)


async def test_nothing_is_shown_until_a_word_is_whole() -> None:
    desk = Desk(("sto", SURE), ("re", SURE), (".items", SURE), at_once=2)
    asked = asyncio.create_task(desk.ask("x = ‸\n", show_after_s=0.0))
    await desk.engine.waiting.wait()
    await asyncio.sleep(0)
    assert not asked.done(), "the word may go on"
    desk.engine.go.set()
    end, _ = await asked
    assert end.text.startswith("store")


async def test_lines_from_the_first_unsure_one_on_are_left_out_and_not_given_before() -> None:
    pieces = (
        ("if", SURE),
        (" x:\n", SURE),
        ("        a", SURE),
        (" = 1\n", SURE),
        ("        b =", UNSURE),
        (" 2\n", SURE),
    )
    end, given = await Desk(*pieces).ask("def f(x):\n    ‸\n")
    assert end.text == "if x:\n        a = 1"
    assert end.text.startswith("".join(given))


async def test_lines_are_given_and_decoding_ends_as_soon_as_without_a_threshold() -> None:
    pieces = [(each, SURE) for each in ("if x:\n", "        a = 1\n", "        b = 2\n", "    return a\n", "\n", "def")]
    given = {}
    for least in (0.0, MEDIUM):
        desk = Desk(*pieces)
        end, parts = await desk.ask("def f(x):\n    ‸\n", least=least)
        given[least] = (end.text, parts, end.timings.decode_tokens)
    assert given[0.0] == given[MEDIUM]
    assert len(given[0.0][1]) > 1


async def test_once_the_unsure_part_is_typed_the_rest_is_shown_without_the_model() -> None:
    desk = Desk(("total", UNSURE), ("_price", SURE), (" * 2", SURE))
    nothing, _ = await desk.ask("x = ‸\n")
    assert nothing.text == ""
    still, _ = await desk.ask("x = t‸\n")
    assert still.text == ""
    rest, _ = await desk.ask("x = total‸\n")
    assert rest.text == "_price * 2"
    assert len(desk.engine.requests) == 1


async def test_a_token_that_had_to_begin_with_the_typed_word_says_nothing() -> None:
    end, _ = await Desk(("al", UNSURE), (" +", SURE), (" 1", SURE)).ask("x = tot‸\n")
    assert end.text == "al + 1"
