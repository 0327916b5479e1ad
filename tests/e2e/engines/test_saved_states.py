"""Saved KV states and slots with the real model: the same answers, nothing read twice, each adapter its own."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from peft_core.api_types import FinishReason, Timings
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import import_shipped_adapters
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions, SavedStatesOptions
from peft_daemon.models import catalogue

pytestmark = pytest.mark.model


def hole(name: str, before: str, after: str = "\n") -> tuple[Segment, ...]:
    names = "".join(f"{name}_{n} = {n}\n" for n in range(20))
    return (
        Segment("<|fim_prefix|>", special=True),
        Segment(names + before),
        Segment("<|fim_suffix|>", special=True),
        Segment(after),
        Segment("<|fim_middle|>", special=True),
    )


ADD = hole("first", "\n\ndef add(a, b):\n    return")
AREA = hole("second", "\n\ndef area(width, height):\n    return")


@pytest.fixture(scope="module")
def options(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaCppOptions:
    return LlamaCppOptions("test", model_file, tmp_path_factory.mktemp("s"), threads=1, batch_tokens=64)


@pytest.fixture(scope="module")
def lora(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterLease:
    entry = catalogue.get("qwen2.5-coder-0.5b-instruct")
    registry = AdapterRegistry(tmp_path_factory.mktemp("a") / "adapters")
    import_shipped_adapters(registry, BaseModel(entry.id, entry.sha256, model_file))
    manifest = registry.get("code-fim")
    return registry.lease(manifest, manifest.scale)


def with_states(options: LlamaCppOptions, folder: Path) -> LlamaCppOptions:
    return replace(options, states=SavedStatesOptions(folder, 100_000_000, "sha"))


@asynccontextmanager
async def running(options: LlamaCppOptions) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(options)
    await engine.start()
    try:
        await engine.ready()
        yield engine
    finally:
        await engine.stop()


async def ask(
    engine: LlamaCppEngine, prompt: tuple[Segment, ...], adapter: AdapterLease | None = None, tokens: int = 12
) -> tuple[str, Timings]:
    text = ""
    async with aclosing(engine.generate(GenerationRequest(prompt, tokens, adapter=adapter))) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if chunk.reason is not None:
                return text, chunk.timings
    raise AssertionError("the last chunk has a reason")


async def test_a_prompt_can_be_read_ahead(options: LlamaCppOptions) -> None:
    async with running(options) as engine:
        *reading, last = [chunk async for chunk in engine.generate(GenerationRequest(ADD, 0))]
        assert all(chunk.silent for chunk in reading)
        assert last.reason is FinishReason.LENGTH
        assert last.timings.prompt_evaluated == last.timings.prompt_tokens
        text, timings = await ask(engine, ADD)
        assert text.startswith(" a + b") and timings.prompt_evaluated == 1


@pytest.mark.long
async def test_reading_ahead_can_be_cancelled_and_goes_on_from_there(options: LlamaCppOptions) -> None:
    prompt = (Segment("".join(f"value_{n} = {n}\n" for n in range(100))),)
    async with running(options) as engine:
        step = asyncio.Event()

        async def read() -> None:
            async with aclosing(engine.generate(GenerationRequest(prompt, 0))) as items:
                async for _ in items:
                    step.set()

        reading = asyncio.create_task(read())
        await step.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await engine.idle()
        _, timings = await ask(engine, prompt, tokens=0)
        assert 0 < timings.prompt_reused < timings.prompt_tokens


@pytest.mark.parametrize("kind", ["base", "adapter"])
async def test_after_a_restart_the_answer_is_the_same_and_nothing_is_read_again(
    options: LlamaCppOptions, lora: AdapterLease, tmp_path: Path, kind: str
) -> None:
    adapter = lora if kind == "adapter" else None
    options = with_states(options, tmp_path / "kv")
    async with running(options) as engine:
        await ask(engine, ADD, adapter, tokens=0)
        before, _ = await ask(engine, ADD, adapter)
        if adapter is not None:
            assert before != (await ask(engine, ADD))[0], "the adapter is to make a difference"
            await ask(engine, ADD, adapter, tokens=0)
    async with running(options) as engine:
        after, timings = await ask(engine, ADD, adapter)
        assert (after, timings.prompt_evaluated) == (before, 1)
        # An edit in the middle: what stands before it is not read again.
        _, timings = await ask(engine, (*ADD[:1], Segment(ADD[1].text[:-20] + "\nx ="), *ADD[2:]), adapter)
        assert timings.prompt_reused > 80
    for path in (tmp_path / "kv").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_adapters_state_is_never_used_without_it(
    options: LlamaCppOptions, lora: AdapterLease, tmp_path: Path
) -> None:
    async with running(with_states(options, tmp_path / "kv")) as engine:
        await ask(engine, ADD, lora, tokens=0)
    async with running(options) as engine:
        await ask(engine, ADD, tokens=0)
        wanted, _ = await ask(engine, ADD)
    async with running(with_states(options, tmp_path / "kv")) as engine:
        _, timings = await ask(engine, ADD, tokens=0)
        assert timings.prompt_reused == 0
        assert (await ask(engine, ADD))[0] == wanted


@pytest.mark.long
async def test_two_documents_in_two_slots_do_not_disturb_each_other(options: LlamaCppOptions) -> None:
    async with running(replace(options, slots=2)) as engine:
        for prompt in (ADD, AREA):
            await ask(engine, prompt, tokens=0)
        for _ in range(2):
            (first, one), (second, other) = await asyncio.gather(
                ask(engine, ADD, tokens=4), ask(engine, AREA, tokens=6)
            )
            assert first.startswith(" a + b") and second.startswith(" width * height")
            assert (one.prompt_evaluated, other.prompt_evaluated) == (1, 1)


@pytest.mark.long
async def test_two_slots_with_different_adapters_write_what_each_writes_alone(
    options: LlamaCppOptions, lora: AdapterLease
) -> None:
    async with running(replace(options, slots=2, adapters=(lora,))) as engine:
        alone = []
        for adapter in (None, lora):
            await ask(engine, ADD, adapter, tokens=0)
            alone.append((await ask(engine, ADD, adapter))[0])
        assert alone[0] != alone[1]
        together = await asyncio.gather(ask(engine, ADD), ask(engine, ADD, lora))
        assert [text for text, _ in together] == alone
        assert [timings.prompt_evaluated for _, timings in together] == [1, 1]


@pytest.mark.long
async def test_a_state_that_cannot_be_read_costs_nothing_but_the_reading(
    options: LlamaCppOptions, tmp_path: Path
) -> None:
    options = with_states(options, tmp_path / "kv")
    async with running(options) as engine:
        await ask(engine, ADD, tokens=0)
    (state,) = (tmp_path / "kv").glob("*.kv")
    state.write_bytes(b"\0" * state.stat().st_size)
    async with running(options) as engine:
        text, timings = await ask(engine, ADD)
        assert text.startswith(" a + b") and timings.prompt_evaluated == timings.prompt_tokens
        assert engine.status().restarts == 0


async def test_a_folder_that_cannot_be_used_stops_nothing(options: LlamaCppOptions, tmp_path: Path) -> None:
    (tmp_path / "kv").write_text("in the way")
    async with running(with_states(options, tmp_path / "kv")) as engine:
        assert (await ask(engine, ADD))[0].startswith(" a + b")
