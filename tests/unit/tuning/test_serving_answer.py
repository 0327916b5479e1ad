"""What a client sees of tokens: whole characters, nothing at or after a stop string, however tokens are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.engines.base import TokenLogprob
from peft_daemon.engines.torch.answer import AnswerText

texts = st.text(st.sampled_from("abé\n"), max_size=12)


def told(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[list[str], bool]:
    answer, parts = AnswerText(stops), []
    for piece in pieces:
        parts.append(answer.add(piece)[0])
        if answer.stopped:
            break
    return [*parts, answer.rest()[0]], answer.stopped


@st.composite
def cut(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    text = draw(texts)
    raw = text.encode()
    places = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    return text, [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]


@given(answer=cut(), stops=st.lists(st.text(st.sampled_from("abé\n"), min_size=1, max_size=4), max_size=3))
def test_the_text_up_to_the_first_stop_string_is_told_and_nothing_else(
    answer: tuple[str, list[bytes]], stops: list[str]
) -> None:
    text, pieces = answer
    # A stop string counts when it is complete: of two that overlap, the one that ends first.
    ends = [(found + len(stop), found) for stop in stops if (found := text.find(stop)) >= 0]
    parts, stopped = told(pieces, tuple(stops))
    assert stopped is bool(ends)
    assert text.startswith("".join(parts))
    if not ends:
        assert "".join(parts) == text
    else:
        assert all(stop not in "".join(parts) for stop in stops)
        assert len("".join(parts)) in {found for _, found in ends}


def test_text_is_given_out_at_once_unless_a_stop_string_may_begin_in_it() -> None:
    assert told([b"ab", b"c\n", b"\n", b"def"], ("\n\ndef",)) == (["ab", "c", "", "", ""], True)
    assert told([b"ab", b"c\n", b"x"], ("\n\ndef",)) == (["ab", "c", "\nx", ""], False)


def test_half_a_character_waits_for_its_other_half_and_is_dropped_at_the_end() -> None:
    assert told(["é".encode()[:1], "é".encode()[1:], "é".encode()[:1]], ()) == (["", "é", "", ""], False)


def test_logprobs_come_with_the_text_of_their_token_and_not_for_what_is_cut_off() -> None:
    a, b, c = (TokenLogprob(name, -1.0) for name in "abc")
    answer = AnswerText(("##",))
    assert answer.add(b"x#", a) == ("x", (a,))
    assert answer.add(b"y", b) == ("#y", (b,))
    assert answer.add(b"##z", c) == ("", ())
    assert answer.rest() == ("", ())
