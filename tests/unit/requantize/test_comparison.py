"""What decides about a copy: its loss on real code, the lines it completes, and its speed."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from peft_core.api_types import FinishReason, Timings
from peft_core.errors import NotFound
from peft_daemon.completion import formats
from peft_daemon.engines.base import Engine, GenerationChunk, GenerationRequest, TokenLogprob
from peft_daemon.requantize.comparison import (
    LENGTH,
    CopyQuality,
    Excerpt,
    compare_quality,
    load_excerpts,
    measure_speed,
    surprise,
    t_95,
)

EMPTY = msgspec.convert({field.name: 0 for field in msgspec.structs.fields(Timings)}, type=Timings, strict=False)
FILL = formats.get("qwen-fim-v1")


class Knowing:
    """An engine that knows the texts: sure of the next character to a degree, right about a share of lines."""

    def __init__(self, texts: list[Excerpt], sureness: float, wrong_lines: int = 0, ms: float = 1.0) -> None:
        self.texts, self.sureness, self.wrong, self.ms = texts, sureness, wrong_lines, ms

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        before = next((s.text for s in request.prompt if not s.special and s.text), "")
        timings = msgspec.structs.replace(
            EMPTY, prompt_evaluated=100, prompt_ms=100 * self.ms, decode_tokens=10, decode_ms=20 * self.ms
        )
        text = next((t.text for t in self.texts if t.text.startswith(before)), before + "\n")
        if request.logprobs:
            top = ((text[len(before)], math.log(self.sureness)), ("\x00", math.log(1 - self.sureness)))
            yield GenerationChunk(text[len(before)], (TokenLogprob(top[0][0], top[0][1], top),), timings)
        else:
            self.wrong -= 1
            line = text[len(before) : text.find("\n", len(before))]
            yield GenerationChunk("nonsense" if self.wrong >= 0 else line, timings=timings)
        yield GenerationChunk(reason=FinishReason.STOP, timings=timings)


def _engine(*arguments: Any, **options: Any) -> Engine:
    return cast("Engine", Knowing(*arguments, **options))


async def _judge(texts: list[Excerpt], original: Engine, copy: Engine) -> CopyQuality:
    return await compare_quality(original, copy, texts, FILL, lease=None, advance=lambda done, of: None)


@pytest.fixture(scope="module")
def texts() -> list[Excerpt]:
    return load_excerpts(6)


async def test_a_copy_that_is_the_same_passes(texts: list[Excerpt]) -> None:
    found = await _judge(texts, _engine(texts, 0.5), _engine(texts, 0.5))
    assert (found.loss, found.loss_bound) == (0, 0)
    assert found.same == found.right == found.right_original == found.lines > 12
    assert found.passes


async def test_a_copy_that_is_less_sure_of_real_code_fails(texts: list[Excerpt]) -> None:
    found = await _judge(texts, _engine(texts, 0.5), _engine(texts, 0.48))
    assert found.loss == pytest.approx(math.log(0.5 / 0.48))
    assert not found.passes


async def test_a_copy_that_completes_fewer_lines_fails(texts: list[Excerpt]) -> None:
    found = await _judge(texts, _engine(texts, 0.5), _engine(texts, 0.5, wrong_lines=6))
    assert found.right == found.lines - 6
    assert found.only_original == 6
    assert found.worse_lines_p == pytest.approx(1 / 64)
    assert not found.passes


async def test_a_few_lines_less_may_be_chance(texts: list[Excerpt]) -> None:
    assert (await _judge(texts, _engine(texts, 0.5), _engine(texts, 0.5, wrong_lines=3))).passes


def test_tokens_that_agree_with_the_text_count_together() -> None:
    answer = TokenLogprob(
        "re", math.log(0.5), (("re", math.log(0.5)), ("return", math.log(0.25)), ("", -0.1), ("x", -3))
    )
    assert surprise(answer, "return x") == pytest.approx(-math.log(0.75))
    assert surprise(answer, "yield x") == pytest.approx(3)


async def test_gains_are_ratios_of_times(texts: list[Excerpt]) -> None:
    gain = await measure_speed(_engine(texts, 0.5, ms=3), _engine(texts, 0.5, ms=2), texts, lambda done, of: None)
    assert gain.reading == gain.writing == gain.both == pytest.approx(1.5)


def test_excerpts_are_the_same_each_time_and_cut_where_words_begin() -> None:
    first, again = load_excerpts(24), load_excerpts(24)
    assert first == again
    assert len({text.name for text in first}) == 24
    for text in first:
        assert text.end - text.start == LENGTH
        starts = text.word_starts()
        assert starts == sorted(set(starts))
        assert all(text.text[at].isalnum() or text.text[at : at + 2].strip().isalnum() for at in starts)
        assert not any(text.text[at - 1].isalnum() and text.text[at].isalnum() for at in starts)
        lines = [text.text.count("\n", 0, at) for at in text.cuts()]
        assert lines == sorted(set(lines))


def test_short_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("x = 1\n")
    (tmp_path / "foreign.py").write_text("é = 1\n" * 500)
    (tmp_path / "good.py").write_text("x = 1\n" * 500)
    assert [text.name for text in load_excerpts(1, tmp_path)] == ["good.py"]
    with pytest.raises(NotFound, match="1 of the 2 Python modules"):
        load_excerpts(2, tmp_path)


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.1318), (5, 2.0150), (11, 1.7959), (23, 1.7139), (200, 1.6525)])
def test_student_s_t_is_what_the_tables_say(freedom: int, quantile: float) -> None:
    assert t_95(freedom) == pytest.approx(quantile, rel=0.005)
