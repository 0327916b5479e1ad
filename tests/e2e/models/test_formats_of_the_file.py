"""The default model's own file says which prompt formats it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.gguf import read_vocabulary
from peft_daemon.completion.detection import fill_format_of, instruct_format_of
from peft_daemon.completion.formats import FORMATS

pytestmark = pytest.mark.model


def test_the_formats_found_in_the_file_are_those_of_the_catalogue(model_file: Path) -> None:
    vocabulary = read_vocabulary(model_file)
    assert fill_format_of(vocabulary) is FORMATS["qwen-fim-v1"]
    # Not only one with the same tokens: the same, so that adapters that name it fit.
    assert instruct_format_of(vocabulary) is FORMATS["qwen-chat-v1"]
