"""Through the product's engine: each request is answered with exactly the adapter it leases, whatever came before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peft_core.errors import EngineFailed
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.base import Delta, GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from support.synthetic_adapter import TinyModel, lora, write_peft


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return TinyModel.random().write(tmp_path / "base.gguf")


@pytest.fixture
def leases(base: BaseModel, tmp_path: Path) -> list[AdapterLease]:
    registry = AdapterRegistry(tmp_path / "registry")
    folders = {seed: write_peft(tmp_path / f"peft{seed}", lora(seed=seed)) for seed in (1, 50)}
    return [registry.lease(registry.import_(folder, name=f"a{seed}", base=base)) for seed, folder in folders.items()]


@asynccontextmanager
async def serving(base: BaseModel, adapters: tuple[AdapterLease, ...] = ()) -> AsyncGenerator[LlamaCppEngine, None]:
    options = LlamaCppOptions(
        model_id="tiny",
        model_path=base.path,
        socket_folder=base.path.parent,
        context_tokens=512,
        threads=1,
        adapters=adapters,
    )
    engine = LlamaCppEngine(options)
    await engine.start()
    try:
        await engine.ready()
        yield engine
    finally:
        await engine.stop()


async def answer(engine: LlamaCppEngine, lease: AdapterLease | None) -> str:
    request = GenerationRequest(prompt=(Segment("def f(x):"),), max_tokens=12, adapter=lease)
    return "".join([item.text async for item in engine.generate(request) if isinstance(item, Delta)])


async def test_adapters_loaded_from_the_start_need_no_other_child(base: BaseModel, leases: list[AdapterLease]) -> None:
    async with serving(base) as plain:
        expected = [await answer(plain, lease) for lease in (None, *leases)]
    async with serving(base, tuple(leases)) as engine:
        status = engine.status()
        assert status.adapters == [lease.digest for lease in leases]
        assert [await answer(engine, lease) for lease in (None, *leases)] == expected
        assert engine.status().pid == status.pid


async def test_an_adapter_the_engine_dies_of_does_not_keep_the_base_from_serving(
    base: BaseModel, leases: list[AdapterLease], tmp_path: Path
) -> None:
    damaged, gone = tmp_path / "damaged.gguf", tmp_path / "gone.gguf"
    damaged.write_bytes(leases[0].path.read_bytes()[:500])
    bad = (AdapterLease("d" * 64, damaged), AdapterLease("e" * 64, gone))
    async with serving(base, (*leases, *bad)) as engine:
        assert engine.status().adapters == []
        assert await answer(engine, None)
        with pytest.raises(EngineFailed, match="dddddddddddd could not be loaded"):
            await answer(engine, bad[0])
        assert await answer(engine, leases[0]) != await answer(engine, None)


async def test_no_request_sees_anothers_adapter(base: BaseModel, leases: list[AdapterLease]) -> None:
    async with serving(base) as engine:
        everyone = [None, *leases]
        first = [await answer(engine, lease) for lease in everyone]
        assert len(set(first)) == 3, "the base and both adapters must differ"
        for order in ([0, 1, 2], [0, 2, 1, 0], [1, 1, 0, 0], [2, 0, 1]):
            assert [await answer(engine, everyone[i]) for i in order] == [first[i] for i in order]
