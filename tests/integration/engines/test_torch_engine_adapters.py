"""The torch engine serves adapters of all its methods; all else is in ``test_engine_contract``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from peft_core.errors import InvalidInput, NotFound
from peft_core.status_types import TORCH
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Segment
from peft_daemon.engines.torch.engine import TorchEngine, TorchOptions

pytestmark = [pytest.mark.torch, pytest.mark.asyncio(loop_scope="module")]

PROMPT = (Segment("def return(x): return x"),)
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
    return TorchOptions(
        "tiny", home / "qwen2.gguf", context_tokens=100_000, threads=1, adapter_folders=(home / "registry",)
    )


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


async def generate(engine: TorchEngine, request: GenerationRequest) -> tuple[str, GenerationChunk]:
    """Return the whole text and the last chunk."""
    chunks = [chunk async for chunk in engine.generate(request)]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


async def test_requests_at_the_same_time_get_their_own_adapters(engine: TorchEngine, home: Path) -> None:
    requests = [GenerationRequest(PROMPT, 8, adapter=leased(home, kind), begins_with=kind[0]) for kind in KINDS]
    requests.append(GenerationRequest(PROMPT, 8, begins_with="b"))
    alone = [(await generate(engine, request))[0] for request in requests]
    order = [4, 0, 1, 4, 3, 2, 0, 4, 1, 3]
    together = await asyncio.gather(*(generate(engine, requests[n]) for n in order))
    assert [text for text, _ in together] == [alone[n] for n in order]
    assert set(engine.status().adapters) == {leased(home, kind).digest for kind in KINDS}


async def test_a_refusal_ends_one_request_and_says_why(engine: TorchEngine, home: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot have the scale"):
        await generate(engine, GenerationRequest(PROMPT, 4, adapter=leased(home, "prefix", 0.5)))
    with pytest.raises(InvalidInput, match="no control token"):
        await generate(engine, GenerationRequest((Segment("<|fim|>", special=True),), 4))
    gone = replace(leased(home, "lora"), digest="0" * 64, path=home / "gone")
    with pytest.raises(NotFound, match="removed meanwhile"):
        await generate(engine, GenerationRequest(PROMPT, 4, adapter=gone))
    assert (await generate(engine, GenerationRequest(PROMPT, 4)))[1].reason is not None
