"""The model on a Vulkan device: Mesa's lavapipe, a whole driver that computes on the processor.

The program is the wheel's where it runs, which is quick. Elsewhere ``engine build --device vulkan`` compiles it,
the first time, so these tests are then among the long ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.llamacpp.programs import Program, ask_program
from support.llama_server import built_llama_server, wheel_program
from support.synthetic_adapter import TinyModel, lora, write_peft

WHEEL_PROGRAM = wheel_program()
DRIVERS = sorted(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json"))
pytestmark = [
    pytest.mark.skipif(not DRIVERS, reason="needs lavapipe: apt install mesa-vulkan-drivers"),
    *(() if WHEEL_PROGRAM else (pytest.mark.long, pytest.mark.timeout(7200))),
]
PROMPT = (Segment("def f(x):\n    return x"),)


@pytest.fixture(scope="module")
def program() -> Path:
    return WHEEL_PROGRAM or built_llama_server(device="vulkan")


@pytest.fixture(autouse=True)
def lavapipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp takes a device of the kind "CPU" only if it is told its number."""
    monkeypatch.setenv("VK_ICD_FILENAMES", str(DRIVERS[0]))
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")


@asynccontextmanager
async def engine(
    model: Path, program: Path, gpu_layers: int, flash_attention: str = "auto"
) -> AsyncIterator[LlamaCppEngine]:
    with tempfile.TemporaryDirectory(prefix="pd-") as sockets:
        options = LlamaCppOptions(
            "tiny",
            model,
            Path(sockets),
            context_tokens=512,
            threads=1,
            program=program,
            gpu_layers=gpu_layers,
            flash_attention=flash_attention,  # type: ignore[arg-type]
        )
        one = LlamaCppEngine(options)
        await one.start()
        try:
            await one.ready()
            yield one
        finally:
            await one.stop()


async def answers(one: LlamaCppEngine, leases: list[object]) -> list[str]:
    texts = []
    for lease in (None, *leases):
        request = GenerationRequest(PROMPT, 12, adapter=lease)  # type: ignore[arg-type]
        texts.append("".join([chunk.text async for chunk in one.generate(request)]))
    return texts


def test_the_device_is_listed(program: Path) -> None:
    (device,) = ask_program(Program("path", program)).devices
    assert "llvmpipe" in device


@pytest.mark.parametrize("flash_attention", ["auto", "off"])
async def test_layers_on_the_device_answer_as_on_the_processor_with_adapters_too(
    tmp_path: Path, program: Path, flash_attention: str
) -> None:
    base = TinyModel.random().write(tmp_path / "base.gguf")
    registry = AdapterRegistry(tmp_path / "registry")
    leases = []
    for seed in (1, 50):
        peft = write_peft(tmp_path / f"peft{seed}", lora(seed=seed))
        leases.append(registry.lease(registry.import_(peft, name=f"a{seed}", base=base), engine=LLAMACPP))
    async with engine(base.path, program, gpu_layers=0) as processor:
        expected = await answers(processor, leases)
    async with engine(base.path, program, 99, flash_attention) as device:
        assert await answers(device, leases) == expected
        assert len(set(expected)) == 3
        # Once more, from what the device keeps of the prompt.
        assert (await answers(device, leases))[0] == expected[0]
