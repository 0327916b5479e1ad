"""Which engine serves: the setting decides, and a missing library is said before anything starts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from peft_daemon.config import Settings
from peft_daemon.engines import choice, torch
from peft_daemon.engines.base import LLAMACPP, TORCH, Engine
from peft_daemon.errors import InvalidInput


def create(setting: str) -> Engine:
    return choice.create(
        Settings(engine=setting),  # type: ignore[arg-type]
        model_id="m",
        model_path=Path("m.gguf"),
        context_tokens=4096,
        socket_folder=Path(),
    )


def test_auto_is_llama_cpp() -> None:
    assert [create(setting).id for setting in ("auto", "llamacpp")] == [LLAMACPP, LLAMACPP]


@pytest.mark.torch
def test_torch_is_chosen_by_name_and_not_imported() -> None:
    code = (
        "import sys, pathlib; from peft_daemon.config import Settings; from peft_daemon.engines import choice\n"
        "e = choice.create(Settings(engine='torch'), model_id='m', model_path=pathlib.Path('m'), context_tokens=1,"
        " socket_folder=pathlib.Path())\n"
        "print(e.id, e.status().kind, sorted({'torch', 'transformers', 'peft', 'peft_tuning'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{TORCH} torch []"


def test_a_missing_library_is_named_with_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(torch.importlib.util, "find_spec", lambda name: None if name == "peft" else real(name))
    with pytest.raises(InvalidInput, match="peft cannot be found") as caught:
        create("torch")
    assert "pip install 'peft-daemon[tune]'" in caught.value.fix
