"""Stop strings in a text that comes in pieces, and what of a file a server could take for a control token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.completion.formats import FORMATS
from peft_daemon.engines.base import Segment
from peft_daemon.engines.upstream.protocols import literal_pieces, prompt_as_text
from peft_daemon.engines.upstream.streamed import StopFilter

FORGED = [
    *sorted(
        {
            piece.text.strip()
            for form in FORMATS.values()
            for piece in (*form.pieces, *form.with_context, *form.chunk, *form.answered)
            if isinstance(piece, Segment) and piece.special
        }
    ),
    "<|fim_middle|>",
    "<|endoftext|>",
    "<｜fim▁hole｜>",
    "<fim_suffix>",
    "<file_sep>",
    "▁<MID>",
    "<s>",
    "</s>",
    "<start_of_turn>",
    "[SUFFIX]",
    "[/INST]",
]
"""Control tokens of the families whose formats there are, and some others."""


def filtered(pieces: list[str], stops: list[str]) -> str:
    text = StopFilter(stops)
    return "".join(text.add(piece) for piece in pieces) + text.rest()


@given(st.lists(st.text("ab\n", max_size=4), max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3))
def test_the_text_ends_before_the_first_stop_string_however_it_was_cut(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    first = min((at for stop in stops if (at := whole.find(stop)) >= 0), default=len(whole))
    assert len(filtered(pieces, stops)) >= first
    assert whole.startswith(filtered(pieces, stops))
    assert not any(stop in filtered(pieces, stops) for stop in stops)


def test_text_is_held_back_only_while_a_stop_string_could_begin_there() -> None:
    text = StopFilter(["</code>"])
    assert [text.add(piece) for piece in ("a <", "/co", "x ", "</code", ">b")] == ["a ", "", "</cox ", "", ""]
    assert text.stopped and text.rest() == ""


def test_a_file_that_spells_a_control_token_is_cut_within_it_and_written_apart_in_text() -> None:
    for token in FORGED:
        source = f"x = '{token}' + y\n"
        assert "".join(literal_pieces(source)) == source
        assert not any(token in piece for piece in literal_pieces(source))
        assert token not in prompt_as_text((Segment(source),))
        halves = (Segment(source[:8]), Segment(source[8:]))
        assert token not in prompt_as_text(halves)
        assert token in prompt_as_text((Segment(token, special=True),))


def test_ordinary_code_is_sent_as_it_is() -> None:
    source = "if a < b and c <= d: List<String> x = <div>{y | z}</div>; std::vector<int> v[SIZE]; a <| b |> c\n"
    assert literal_pieces(source) == [source]
    assert prompt_as_text((Segment(source),)) == source
