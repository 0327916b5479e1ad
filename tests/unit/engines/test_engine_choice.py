"""Which engine serves: the setting decides, and a missing library is said before anything starts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine
from peft_daemon.engines.torch import engine


def create(setting: str) -> Engine:
    return factory.create_engine(
        Settings(engine=setting),  # type: ignore[arg-type]
        model_id="m",
        model_path=Path("m.gguf"),
        context_tokens=4096,
        socket_folder=Path(),
    )


def test_auto_is_llama_cpp() -> None:
    assert [create(setting).id for setting in ("auto", "llamacpp")] == [LLAMACPP, LLAMACPP]


@pytest.mark.parametrize(("free_mb", "asked", "slots"), [(900, 0, 1), (4000, 0, 2), (900, 2, 2), (4000, 1, 1)])
def test_two_slots_need_memory_unless_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_mb: int, asked: int, slots: int
) -> None:
    class Memory:
        available = free_mb * 1_000_000

    monkeypatch.setattr(factory, "read_memory", Memory)
    model = tmp_path / "m.gguf"
    model.write_bytes(bytes(1_000_000))
    assert factory.slot_count(Settings(slots=asked), model) == slots
    assert factory.slot_count(Settings(slots=asked, engine="torch"), model) == (asked or 1)


@pytest.mark.parametrize(
    ("setting", "guesses"), [("on", True), ("off", False), ("auto", factory.SPECULATION_BY_DEFAULT)]
)
def test_guessing_is_as_it_was_measured_unless_it_is_set(setting: str, guesses: bool) -> None:
    assert factory.uses_speculation(Settings(speculation=setting)) is guesses  # type: ignore[arg-type]


@pytest.mark.torch
def test_torch_is_chosen_by_name_and_not_imported() -> None:
    code = (
        "import sys, pathlib; from peft_core.settings import Settings; from peft_daemon.engines import factory\n"
        "e = factory.create_engine(Settings(engine='torch'), model_id='m', model_path=pathlib.Path('m'),"
        " context_tokens=1, socket_folder=pathlib.Path())\n"
        "print(e.id, e.status().kind, sorted({'torch', 'transformers', 'peft', 'peft_tuning'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{TORCH} torch []"


def test_a_missing_library_is_named_with_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None if name == "peft" else real(name))
    with pytest.raises(InvalidInput, match="peft cannot be found") as caught:
        create("torch")
    assert "pip install 'peft-daemon[tune]'" in caught.value.fix
