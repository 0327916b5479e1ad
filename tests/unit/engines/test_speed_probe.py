"""A speed probe is a model that the engine takes, as large as it says, and that costs no disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from peft_core.gguf import read_header
from peft_core.settings import Settings
from peft_daemon.engines import machine
from peft_daemon.engines.machine import PROBE_FUNCTIONS, QUANTIZATIONS, write_probe
from peft_daemon.engines.speed import measure_speed
from peft_daemon.models.facts import read_facts

MIN_BYTES = 128_000_000
"""More than the caches of nearly all processors of laptops."""


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_probe_is_a_whole_model_larger_than_caches_and_a_hole_on_the_disk(tmp_path: Path, quantization: str) -> None:
    probe = write_probe(tmp_path / "probe.gguf", quantization)
    assert read_facts(probe.path).bytes == probe.path.stat().st_size > probe.bytes > MIN_BYTES
    matrices = [each for name, each in read_header(probe.path).tensors.items() if name.startswith("blk") and each.type]
    assert sum(each.shape[0] * each.shape[1] for each in matrices) == probe.weights
    if sys.platform == "linux":
        assert probe.path.stat().st_blocks * 512 < 1_000_000


async def test_the_engine_reads_and_writes_with_a_probe(tmp_path: Path) -> None:
    probe = write_probe(tmp_path / "probe.gguf", QUANTIZATIONS[0])
    settings = Settings(threads=1, slots=1, speculation="off")
    speed = await measure_speed(settings, probe.entry, probe.path, functions=PROBE_FUNCTIONS, answer_tokens=4)
    assert speed.reading > 0 and speed.writing > 0


@pytest.mark.skipif(sys.platform != "linux", reason="a script stands for the driver's program")
@pytest.mark.parametrize(
    ("script", "name"),
    [("echo 'NVIDIA L4, 23034 MiB'", "NVIDIA L4, 23034 MiB"), ("echo broken; exit 9", ""), ("true", "")],
)
def test_a_graphics_card_is_named_if_its_driver_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu_name() == name
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.gpu_name() == ""
