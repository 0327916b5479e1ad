"""The header reader agrees with the reference reader, and refuses what is no GGUF file."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput, NotFound, PeftDaemonError
from peft_core.gguf import read_header, read_vocabulary
from support.synthetic_adapter import TinyModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model of the qwen2 architecture."""
    return TinyModel.random("qwen2").write(tmp_path_factory.mktemp("base") / "tiny.gguf").path


def test_it_reads_what_the_reference_reader_reads(model: Path) -> None:
    header, reference = read_header(model), gguf.GGUFReader(model)
    assert {name: (info.shape, info.type, info.offset) for name, info in header.tensors.items()} == {
        tensor.name: (tuple(reversed(tensor.shape.tolist())), int(tensor.tensor_type), tensor.data_offset)
        for tensor in reference.tensors
    }
    plain = {
        key: field.contents()
        for key, field in reference.fields.items()
        if gguf.GGUFValueType.ARRAY not in field.types and not key.startswith("GGUF.")
    }
    assert header.metadata == plain


def test_it_reads_past_every_kind_of_array(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "arrays.gguf", "qwen2")
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("fractions", [0.5, 1.5])
    writer.add_array("words", ["a", "", "bücher"])
    writer.add_array("flags", [True, False])
    writer.add_bool("after", True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_header(tmp_path / "arrays.gguf").metadata == {"general.architecture": "qwen2", "after": True}


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no model file .*gone\.gguf"):
        read_header(tmp_path / "gone.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGML" + bytes(60), b"GGUF" + b"\x09" + bytes(60)])
def test_another_format_or_version_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InvalidInput, match="not a readable GGUF file"):
        read_header(tmp_path / "x.gguf")


def test_what_a_hostile_header_says_is_refused(tmp_path: Path) -> None:
    def pair(key: str, kind: int, value: bytes) -> bytes:
        return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    nested = struct.pack("<IQ", 9, 1) * 20_000
    for content in (pair("general.alignment", 4, struct.pack("<I", 0)), pair("deep", 9, nested)):
        (tmp_path / "x.gguf").write_bytes(head + content)
        with pytest.raises(InvalidInput, match="not a readable GGUF file"):
            read_header(tmp_path / "x.gguf")
    with pytest.raises(InvalidInput, match="not a readable GGUF file"):
        read_header(tmp_path)


def test_a_vocabulary_that_is_none_is_refused(tmp_path: Path) -> None:
    def write(tokens: object, kinds: object = (1, 1)) -> Path:
        writer = gguf.GGUFWriter(tmp_path / "v.gguf", "qwen2")
        for key, value in (("tokens", tokens), ("token_type", kinds)):
            add = writer.add_array if isinstance(value, tuple) else writer.add_uint32
            add(f"tokenizer.ggml.{key}", value)  # type: ignore[arg-type]
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return tmp_path / "v.gguf"

    assert read_vocabulary(write(("a", "b"))).tokens == ("a", "b")
    for tokens, kinds in ((7, (1, 1)), ((1, 2), (1, 1)), (("a", "b"), 1), (("a", "b"), ("x", "y"))):
        with pytest.raises(InvalidInput, match=r"the vocabulary of .* is damaged"):
            read_vocabulary(write(tokens, kinds))
    content = write(("a", "b")).read_bytes()
    (tmp_path / "v.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInput, match="not a readable GGUF file"):
        read_vocabulary(tmp_path / "v.gguf")


@given(cut=st.integers(0, 5000), position=st.integers(24, 5000), byte=st.integers(0, 255))
def test_a_damaged_header_is_an_error_and_never_a_crash(
    model: Path, tmp_path_factory: pytest.TempPathFactory, cut: int, position: int, byte: int
) -> None:
    data = bytearray(model.read_bytes()[: 10_000 - cut])
    data[min(position, len(data) - 1)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(data)
    try:
        read_header(path)
    except PeftDaemonError as error:
        assert "not a readable GGUF file" in error.line
