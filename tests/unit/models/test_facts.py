"""What a model's file says of itself, and files that are refused with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np
import pytest

from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_daemon.models.facts import model_id, read_facts, require_memory
from support.synthetic_adapter import TinyModel


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return TinyModel.random().write(tmp_path / "tiny-coder.gguf", context_tokens=640).path


def written(path: Path, **fields: str | int) -> Path:
    """A file with one tensor and these metadata."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in fields.items():
        key = name.replace("__", ".")
        if isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_family_quantization_and_context_are_read(file: Path) -> None:
    facts = read_facts(file)
    assert (facts.family, facts.quantization, facts.context_tokens) == ("qwen2", "F32", 640)
    assert (facts.name, facts.licence, facts.bytes) == ("tiny-coder", "unknown", file.stat().st_size)


def test_what_the_makers_say_comes_first(tmp_path: Path) -> None:
    said = {"general__name": "Big Coder", "general__license": "mit", "general__file_type": 15}
    facts = read_facts(written(tmp_path / "x.gguf", llama__context_length=8192, **said))
    assert (facts.name, facts.licence, facts.quantization) == ("Big Coder", "mit", "Q4_K_M")


@pytest.mark.parametrize("lost", [1, 5000])
def test_a_file_that_is_cut_short_is_refused(file: Path, lost: int) -> None:
    size = file.stat().st_size
    with file.open("r+b") as cut:
        cut.truncate(size - lost)
    with pytest.raises(InvalidInput, match="is cut short"):
        read_facts(file)


def test_a_header_that_is_cut_short_is_refused(file: Path) -> None:
    with file.open("r+b") as cut:
        cut.truncate(700)
    with pytest.raises(InvalidInput, match="not a readable GGUF file"):
        read_facts(file)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"general__type": "adapter"}, "is no model"),
        ({"split__count": 3}, "one of 3 parts"),
        ({}, "no llama.context_length"),
    ],
)
def test_what_is_no_whole_model_is_refused(tmp_path: Path, fields: dict[str, str | int], message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        read_facts(written(tmp_path / "x.gguf", **fields))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>not found</html>" * 20)
    (tmp_path / "empty.gguf").touch()
    for name in ("page.gguf", "empty.gguf"):
        with pytest.raises(InvalidInput, match="not a readable GGUF file"):
            read_facts(tmp_path / name)
    with pytest.raises(NotFound, match="no model file"):
        read_facts(tmp_path / "nothing.gguf")
    with pytest.raises(InvalidInput, match="is a folder"):
        read_facts(tmp_path)


def test_a_model_larger_than_the_memory_is_refused() -> None:
    require_memory(7_000, 8_000)
    with pytest.raises(Conflict, match="larger than this machine's memory"):
        require_memory(8_001, 8_000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen2.5-Coder-0.5B-Q8_0", "qwen2.5-coder-0.5b-q8_0"),
        ("codellama:7b-code", "codellama-7b-code"),
        ("../../etc/passwd", "etc-passwd"),
        ("日本", "model"),
        ("x" * 200, "x" * 80),
    ],
)
def test_a_name_becomes_an_id_that_can_be_a_folder(name: str, expected: str) -> None:
    assert model_id(name) == expected
