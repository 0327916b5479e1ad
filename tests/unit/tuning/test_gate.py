"""The gate: which scale is chosen, and when an adapter is let through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from peft_core.api_types import FinishReason
from peft_core.status_types import EngineState, EngineStatus
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import formats
from peft_daemon.engines.base import GenerationChunk, GenerationRequest
from peft_tuning.data.examples import FillExample
from peft_tuning.events import GateVerdict
from peft_tuning.gate import SCALES, GateHoles, judge, score_hole

QWEN = formats.get("qwen-fim-v1")


class Knowing:
    """An engine that knows the answer of a hole from some scale on, and says another otherwise."""

    def __init__(self, *, from_scale: float, general: bool = True) -> None:
        self.from_scale, self.general = from_scale, general
        self.scales: list[float] = []

    async def start(self) -> None: ...
    async def ready(self) -> None: ...
    async def stop(self) -> None: ...
    async def idle(self) -> None: ...

    def status(self) -> EngineStatus:
        return EngineStatus(kind="knowing", state=EngineState.READY, model="m")

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // 3 for text in texts]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        scale = request.adapter.scale if request.adapter else 0.0
        self.scales.append(scale)
        text = "".join(segment.text for segment in request.prompt)
        known = (scale == 0 or self.general) if "general" in text else scale >= self.from_scale
        yield GenerationChunk(request.begins_with + ("right_answer" if known else "something else entirely"))
        yield GenerationChunk(reason=FinishReason.STOP)


def holes(count: int, word: str = "own") -> tuple[FillExample, ...]:
    return tuple(
        FillExample(id=f"{word}{n}", prefix=f"# {word} {n}\nvalue = ", suffix="\n", middle="right_answer")
        for n in range(count)
    )


async def verdict(engine: Knowing, judged: int = 12) -> GateVerdict:
    told: list[tuple[str, int, int]] = []
    found = await judge(
        engine,
        AdapterLease("a" * 64, Path("unused")),
        GateHoles(holes(4), holes(judged), holes(3, "general")),
        QWEN,
        prompt_tokens=256,
        on_progress=lambda event: told.append((event.what, event.done, event.of)),
    )
    assert [done for _, done, _ in told] == list(range(1, told[-1][2] + 1)), "every hole is told of, none twice"
    return found


async def test_an_adapter_that_helps_is_let_through_at_the_scale_that_suffices() -> None:
    found = await verdict(Knowing(from_scale=0.5))
    assert (found.activate, found.scale) == (True, 0.5)
    assert [point.average.exact for point in found.sweep] == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert (found.base.exact, found.adapter.exact) == (0.0, 1.0)
    assert found.p_similarity < 0.01 and found.p_exact < 0.01
    assert not found.forgets


async def test_an_adapter_that_changes_nothing_is_kept_inactive() -> None:
    found = await verdict(Knowing(from_scale=9))
    assert (found.activate, found.scale) == (False, 0.0)
    assert "no scale was better" in found.reason


async def test_few_holes_are_no_evidence() -> None:
    found = await verdict(Knowing(from_scale=0.25), judged=7)
    assert not found.activate
    assert "8 are needed" in found.reason


async def test_what_is_forgotten_is_told() -> None:
    found = await verdict(Knowing(from_scale=0.5, general=False))
    assert found.forgets
    assert found.metrics["general_similarity"] < found.metrics["general_similarity_base"]


async def test_every_scale_is_tried_and_the_base_runs_without_the_adapter() -> None:
    engine = Knowing(from_scale=1.0)
    await verdict(engine)
    assert set(engine.scales) == set(SCALES)


@pytest.mark.parametrize(
    ("answer", "exact", "similarity"),
    [("abcd", True, 1.0), ("abcd \n", True, 1.0), ("abcx", False, 0.75), ("", False, 0.0), ("abcdabcd", False, 0.5)],
)
def test_an_answer_is_compared_without_white_space_at_its_end(answer: str, exact: bool, similarity: float) -> None:
    score = score_hole(FillExample(id="x", prefix="", suffix="", middle="abcd"), answer)
    assert (score.exact, score.similarity) == (exact, pytest.approx(similarity))
