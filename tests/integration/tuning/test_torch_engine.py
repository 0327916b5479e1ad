"""The torch engine with its real child process on a tiny model: streams, cancels, dies, comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from peft_core.api_types import TORCH, EngineState, FinishReason, SamplingParams
from peft_core.errors import EngineFailed, InvalidInput, Unavailable, UnusableFile
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines.base import Delta, Finish, GenerationRequest, LoadChecks, Segment
from peft_daemon.engines.torch.engine import TorchEngine, TorchOptions

pytestmark = [pytest.mark.torch, pytest.mark.asyncio(loop_scope="module")]

PROMPT = (Segment("def return(x): return x"),)
LONG = (Segment("def return(x): " * 200),)
KINDS = ("lora", "ia3", "prompt", "prefix")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, ``qwen2.gguf``, and a registry with an adapter of every method."""
    from support.tiny_served import tiny_gguf, write_adapter

    folder = tmp_path_factory.mktemp("torch")
    base = tiny_gguf(folder)
    registry = AdapterRegistry(folder / "registry")
    for kind in KINDS:
        registry.import_(write_adapter(base, kind, folder / kind), name=kind, base=base)
    return folder


@pytest.fixture(scope="module")
def options(home: Path) -> TorchOptions:
    return TorchOptions("tiny", home / "qwen2.gguf", context_tokens=100_000, threads=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(options: TorchOptions) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(options)
    await engine.start()
    await engine.ready()
    yield engine
    await engine.stop()


def leased(home: Path, name: str, scale: float = 1.0) -> AdapterLease:
    registry = AdapterRegistry(home / "registry")
    return registry.lease(registry.get(name), scale, engine=TORCH)


async def generate(engine: TorchEngine, request: GenerationRequest) -> tuple[str, Finish]:
    text, finish = "", None
    async for item in engine.generate(request):
        if isinstance(item, Delta):
            text += item.text
        else:
            finish = item
    assert finish is not None
    return text, finish


async def test_it_streams_and_reports_where_the_time_went(engine: TorchEngine) -> None:
    pieces = [item async for item in engine.generate(GenerationRequest(PROMPT, 12, begins_with="return return"))]
    assert "".join(p.text for p in pieces[:-1] if isinstance(p, Delta)).startswith("return return")
    assert len(pieces) > 3
    finish = pieces[-1]
    assert isinstance(finish, Finish)
    t = finish.timings
    assert (t.prompt_tokens, t.prompt_evaluated + t.prompt_reused) == (13, 13)
    assert t.decode_tokens > 0 and 0 < t.first_token_ms <= t.engine_ms
    status = engine.status()
    assert (status.kind, status.state, status.model) == ("torch", EngineState.READY, "tiny")
    assert status.memory_bytes > 50e6


async def test_requests_at_the_same_time_get_their_own_adapters(engine: TorchEngine, home: Path) -> None:
    requests = [GenerationRequest(PROMPT, 8, adapter=leased(home, kind), begins_with=kind[0]) for kind in KINDS]
    requests.append(GenerationRequest(PROMPT, 8, begins_with="b"))
    alone = [(await generate(engine, request))[0] for request in requests]
    order = [4, 0, 1, 4, 3, 2, 0, 4, 1, 3]
    together = await asyncio.gather(*(generate(engine, requests[n]) for n in order))
    assert [text for text, _ in together] == [alone[n] for n in order]
    assert set(engine.status().adapters) == {leased(home, kind).digest for kind in KINDS}


async def test_an_adapter_whose_files_are_damaged_is_refused_before_it_is_loaded(
    options: TorchOptions, home: Path
) -> None:
    from support.tiny_served import tiny_gguf, write_adapter

    registry = AdapterRegistry(home / "damaged")
    (home / "other").mkdir()
    base = tiny_gguf(home / "other")
    lease = registry.lease(
        registry.import_(write_adapter(base, "ia3", home / "damaged-ia3"), name="mine", base=base), engine=TORCH
    )
    weights = lease.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9] + b"#########")
    checks = LoadChecks(
        lambda: options.model_path, lambda asked: registry.check_lease(asked, engine=TORCH), lambda why: None
    )
    engine = TorchEngine(replace(options, checks=checks))
    await engine.start()
    try:
        with pytest.raises(UnusableFile, match="'mine' is damaged"):
            await generate(engine, GenerationRequest(PROMPT, 4, adapter=lease))
        assert (await generate(engine, GenerationRequest(PROMPT, 4, begins_with="b")))[0].startswith("b")
        assert engine.status().restarts == 0
    finally:
        await engine.stop()


async def test_tokens_are_counted_while_a_request_is_decoded(engine: TorchEngine) -> None:
    async with aclosing(
        engine.generate(GenerationRequest(LONG, 5000, sampling=SamplingParams(temperature=1.0)))
    ) as stream:
        await anext(stream)
        # A control token that is spelled out is five characters.
        assert await engine.count_tokens(["def return", "", "</s>"]) == [4, 0, 5]


@pytest.mark.parametrize("prompt", [LONG, PROMPT], ids=["while it reads the prompt", "while it writes"])
async def test_closing_the_stream_stops_the_engine(engine: TorchEngine, prompt: tuple[Segment, ...]) -> None:
    fresh = (Segment("x" * (2 if prompt is LONG else 1)), *prompt)
    stream = engine.generate(GenerationRequest(fresh, 50_000, sampling=SamplingParams(temperature=1.0)))
    first = asyncio.ensure_future(anext(stream))
    if prompt is LONG:
        await asyncio.sleep(0.02)
        first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await stream.aclose()
    # 50,000 tokens would keep it busy for minutes.
    await asyncio.wait_for(engine.idle(), 10)


async def test_a_refusal_ends_one_request_and_says_why(engine: TorchEngine, home: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot have the scale"):
        await generate(engine, GenerationRequest(PROMPT, 4, adapter=leased(home, "prefix", 0.5)))
    with pytest.raises(InvalidInput, match="no control token"):
        await generate(engine, GenerationRequest((Segment("<|fim|>", special=True),), 4))
    gone = replace(leased(home, "lora"), digest="0" * 64, path=home / "gone")
    with pytest.raises(InvalidInput, match="has no folder"):
        await generate(engine, GenerationRequest(PROMPT, 4, adapter=gone))
    assert (await generate(engine, GenerationRequest(PROMPT, 4)))[1].reason is not None


async def test_a_request_that_had_begun_fails_clearly(engine: TorchEngine) -> None:
    stream = engine.generate(GenerationRequest(PROMPT, 50_000, sampling=SamplingParams(temperature=1.0)))
    with pytest.raises(EngineFailed, match="Send the request again"):
        async for _ in stream:
            if (pid := engine.status().pid) is not None:
                os.kill(pid, signal.SIGKILL)


async def test_a_request_survives_an_engine_that_hangs_before_its_first_token(engine: TorchEngine, home: Path) -> None:
    assert await engine.count_tokens(["x"])  # waits for the child that replaces the dead one
    before = engine.status()
    assert before.restarts == 1 and before.pid is not None
    os.kill(before.pid, signal.SIGSTOP)  # it takes the request and does nothing with it
    _, finish = await generate(engine, GenerationRequest(PROMPT, 3, adapter=leased(home, "ia3")))
    assert finish.reason in {FinishReason.LENGTH, FinishReason.STOP}
    after = engine.status()
    assert (after.state, after.restarts) == (EngineState.READY, 2)
    assert after.pid != before.pid


async def test_stopping_ends_the_child_and_refuses_requests(engine: TorchEngine) -> None:
    pid = engine.status().pid
    await engine.stop()
    assert pid is not None and not psutil.pid_exists(pid)
    with pytest.raises(Unavailable, match="peft-daemon start"):
        await generate(engine, GenerationRequest(PROMPT, 4))


async def test_a_model_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    engine = TorchEngine(TorchOptions("bad", tmp_path / "missing.gguf", threads=1))
    await engine.start()
    try:
        while not engine.status().last_error:
            await asyncio.sleep(0.05)
        status = engine.status()
        assert status.state in {EngineState.RESTARTING, EngineState.FAILED}
        assert "missing.gguf" in status.last_error and "peft-daemon doctor" in status.fix
    finally:
        await engine.stop()
