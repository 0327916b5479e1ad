"""Through the product's engine: each request is answered with exactly the adapter it leases, whatever came before."""

from __future__ import annotations

from pathlib import Path

from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines.base import AdapterLease, Delta, GenerationRequest, Segment
from peft_daemon.engines.llamacpp import LlamaCppEngine, LlamaCppOptions
from support.synthetic_adapter import TinyModel, lora, write_peft


async def test_no_request_sees_anothers_adapter(tmp_path: Path) -> None:
    base = TinyModel.random().write(tmp_path / "base.gguf")
    registry = AdapterRegistry(tmp_path / "registry")
    leases: list[AdapterLease | None] = [None]
    for seed in (1, 50):
        folder = write_peft(tmp_path / f"peft{seed}", lora(seed=seed))
        leases.append(registry.lease(registry.import_(folder, name=f"adapter{seed}", base=base)))
    engine = LlamaCppEngine(
        LlamaCppOptions(model_id="tiny", model_path=base.path, socket_folder=tmp_path, context_tokens=512, threads=1)
    )

    async def text(lease: AdapterLease | None) -> str:
        request = GenerationRequest(prompt=(Segment("def f(x):"),), max_tokens=12, adapter=lease)
        return "".join([item.text async for item in engine.generate(request) if isinstance(item, Delta)])

    await engine.start()
    try:
        await engine.ready()
        first = [await text(lease) for lease in leases]
        assert len(set(first)) == 3, "the base and both adapters must differ"
        for order in ([0, 1, 2], [0, 2, 1, 0], [1, 1, 0, 0], [2, 0, 1]):
            assert [await text(leases[i]) for i in order] == [first[i] for i in order]
    finally:
        await engine.stop()
