"""What answers on one machine: a serving engine, or many answers at once in torch. The same on a node of a cluster.

Does not cover where the questions come from, nor which of several machines gets one: see ``cluster``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peft_core.api_types import TORCH
from peft_daemon.engines import factory
from peft_daemon.engines.base import set_wait_policy
from peft_evaluation.answering import Answerer, ServedAnswerer
from peft_evaluation.decoding import Beams, Decoding
from peft_tuning.installation import Installation
from peft_tuning.served import serving

AT_ONCE = 1
"""With llama.cpp several are hardly faster, and each slot reads the common beginning of the prompts for itself."""
ROWS = 128
"""Answers, samples or beams that torch writes at once: beyond, a processor's time per token hardly falls."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides an answer, besides the question and the model file. Can be sent to another machine."""

    place: Installation
    decoding: Decoding
    context_tokens: int
    max_tokens: int
    at_once: int | None = None
    """Questions answered together on one machine; None: as many as its engine is fast with."""


def engine_of(place: Installation, decoding: Decoding) -> str:
    """The id of the engine that answers: the chosen one, unless only torch can."""
    return TORCH if isinstance(decoding, Beams) else factory.engine_id(place.settings)


@asynccontextmanager
async def opened(plan: Plan, path: Path) -> AsyncGenerator[Answerer, None]:
    """The answerer with the model at ``path`` loaded, until the block ends; raises what the engine raises."""
    batched = engine_of(plan.place, plan.decoding) == TORCH
    async with (_batched if batched else _served)(plan, path) as answerer:
        yield answerer


@asynccontextmanager
async def _served(plan: Plan, path: Path) -> AsyncGenerator[Answerer, None]:
    at_once = plan.at_once or AT_ONCE
    async with serving(plan.place.settings, plan.place.entry, path, slots=at_once) as engine:
        yield ServedAnswerer(
            engine=engine,
            formats=plan.place.entry.prompt_formats,
            context_tokens=plan.context_tokens,
            max_tokens=plan.max_tokens,
            decoding=plan.decoding,
            at_once=at_once,
        )


@asynccontextmanager
async def _batched(plan: Plan, path: Path) -> AsyncGenerator[Answerer, None]:
    set_wait_policy(plan.place.settings.wait_policy)  # on another machine nothing has set it yet
    from peft_daemon.engines.torch.base_model import load_base  # noqa: PLC0415
    from peft_evaluation.batched.engine import BatchedEngine  # noqa: PLC0415  (loads torch)
    from peft_evaluation.beams import BeamAnswerer  # noqa: PLC0415

    settings, formats, answers = plan.place.settings, plan.place.entry.prompt_formats, plan.decoding.answers
    at_once = plan.at_once or max(1, ROWS // answers)
    engine = BatchedEngine(
        partial(load_base, path, settings.torch_precision),
        model_id=plan.place.entry.id,
        context_tokens=plan.context_tokens,
        rows=at_once * answers,
        threads=settings.threads,
    )
    await engine.start()
    try:
        await engine.ready()
        if isinstance(plan.decoding, Beams):
            yield BeamAnswerer(
                engine=engine,
                formats=formats,
                context_tokens=plan.context_tokens,
                max_tokens=plan.max_tokens,
                decoding=plan.decoding,
                at_once=at_once,
            )
            return
        yield ServedAnswerer(
            engine=engine,
            formats=formats,
            context_tokens=plan.context_tokens,
            max_tokens=plan.max_tokens,
            decoding=plan.decoding,
            at_once=at_once,
            draws_at_once=answers,
        )
    finally:
        await engine.stop()
