"""When a keystroke is worth starting the model for."""

from __future__ import annotations

from peft_daemon.completion.scheduler import MAX_TYPING_PAUSE_S, TypingRhythm


def typed(rhythm: TypingRhythm, *gaps: float, document: str = "doc") -> None:
    """Keys with these gaps between them."""
    now = 100.0
    rhythm.key(document, now)
    for gap in gaps:
        now += gap
        rhythm.key(document, now)


def engine(first_token_ms: float, token_ms: float) -> TypingRhythm:
    """A rhythm that knows the engine to be so fast."""
    rhythm = TypingRhythm()
    rhythm.answered(first_token_ms, token_ms)
    return rhythm


def test_an_engine_faster_than_the_typing_is_asked_at_once() -> None:
    rhythm = engine(60, 30)
    typed(rhythm, 0.2, 0.2)
    assert rhythm.pause_s("doc") == 0


def test_a_slower_one_is_asked_once_the_next_key_has_not_come() -> None:
    rhythm = engine(100, 40)
    typed(rhythm, 0.08, 0.08)
    assert 0.07 < rhythm.pause_s("doc") < 0.09


def test_no_pause_is_longer_than_one_notices() -> None:
    rhythm = engine(5000, 400)
    typed(rhythm, 0.5, 0.5)
    assert rhythm.pause_s("doc") == MAX_TYPING_PAUSE_S


def test_the_first_key_after_a_pause_is_asked_at_once() -> None:
    rhythm = engine(5000, 400)
    assert rhythm.pause_s("doc") == 0
    typed(rhythm, 0.1, 0.1, 3.0)
    assert rhythm.pause_s("doc") == 0


def test_each_document_has_a_rhythm_of_its_own() -> None:
    rhythm = engine(5000, 400)
    typed(rhythm, 0.1, 0.1)
    typed(rhythm, document="other")
    assert rhythm.pause_s("other") == 0
    assert rhythm.pause_s("doc") > 0


def test_the_typing_in_a_hundred_documents_is_not_remembered_for_ever() -> None:
    rhythm = engine(5000, 400)
    typed(rhythm, 0.1, 0.1)
    for number in range(100):
        typed(rhythm, document=str(number))
    assert rhythm.pause_s("doc") == 0
