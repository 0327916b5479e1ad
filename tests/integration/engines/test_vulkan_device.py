"""A Vulkan device is found: Mesa's lavapipe, a whole driver that computes on the processor.

That layers on it answer as on the processor is not tested here: in about half of the runs the program died of a double
free with lavapipe (docs/platforms.md).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_daemon.engines.llamacpp.program import has_graphics_card
from peft_daemon.engines.llamacpp.programs import Program, ask_program
from support.llama_server import WHEEL, llama_server_program

DRIVERS = sorted(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json"))
pytestmark = pytest.mark.skipif(not DRIVERS, reason="needs lavapipe: apt install mesa-vulkan-drivers")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip(WHEEL, reason="its wheel is for Linux on x86-64")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(DRIVERS[0]))
    return llama_server_program()


def test_a_device_is_listed_and_gets_larger_batches(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # llama.cpp takes a device of the kind "CPU" only if it is told its number.
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")
    (device,) = ask_program(Program("path", program)).devices
    assert device.startswith("Vulkan0: llvmpipe")
    assert has_graphics_card(str(program))


def test_no_device_is_listed_where_there_is_only_the_processor(program: Path) -> None:
    assert ask_program(Program("path", program)).devices == ()
    assert not has_graphics_card(str(program))
