"""Methods on the real model: each learns, is saved, comes back bit for bit, and generates.

They take some minutes, in ``make test-all``. In each run LoRA is tried on the real model by test_tune_story, and all
seven on tiny models of all families by tests/unit/tuning.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support import real_methods

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.long, pytest.mark.timeout(900)]

TRAINABLE = {
    **{"lora": 8_798_208, "qlora-4bit": 8_798_208, "qlora-8bit": 8_798_208},
    **{"prompt": 20 * 896, "prefix": 10 * 2 * 24 * 128, "full": 630_167_424},
    # Per layer: queries, keys, values and the output's rows, and the inputs of gate, up and down.
    "ia3": 24 * (896 + 128 + 128 + 896 + 896 + 896 + 4864),
}


@cache
def results(model_file: Path) -> dict[str, dict[str, Any]]:
    """What each method did, tried in one process."""
    command = [sys.executable, real_methods.__file__, str(model_file), *TRAINABLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["method"]: line for line in lines}


@pytest.mark.parametrize("method_id", TRAINABLE)
def test_a_method_learns_and_comes_back_bit_for_bit(method_id: str, model_file: Path) -> None:
    result = results(model_file)[method_id]
    assert result["losses"][-1] < result["losses"][0]
    assert result["identical"]
    assert len(result["text"]) == 3
    assert result["trainable"] == TRAINABLE[method_id]
    assert {Path(name).suffix for name in result["files"]} == {".json", ".safetensors"}
