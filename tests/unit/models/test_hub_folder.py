"""What is read of a folder in transformers' layout, and what is refused in one line before anything is loaded."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound, PeftDaemonError
from peft_core.gguf import TokenKind
from peft_daemon.models.hub_folder import (
    chat_template,
    folder_name,
    read_folder_facts,
    read_folder_vocabulary,
    read_hub_folder,
    read_tokenizer,
)

SHARD = "model-0000{}-of-00002.safetensors"


def safetensors(path: Path, name: str = "model.layers.0.q_proj", dtype: str = "F32", rows: int = 4) -> Path:
    """One tensor of (rows, 2) zeros."""
    size = rows * 2 * (4 if dtype == "F32" else 2)
    header = json.dumps({f"{name}.weight": {"dtype": dtype, "shape": [rows, 2], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return path


def change(file: Path, **values: object) -> None:
    """Set keys of a JSON object; None takes one out."""
    now = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in now.items() if value is not None}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny Coder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512}))
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
                "added_tokens": [
                    {"id": 3, "content": "<|fim_prefix|>", "special": False},
                    {"id": 4, "content": "    ", "special": False},
                    {"id": 2, "content": "</s>", "special": True},
                ],
                "truncation": {"max_length": 7},
                "padding": {"strategy": "BatchLongest"},
            }
        )
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    safetensors(folder / "model.safetensors")
    return folder


def test_its_config_and_weights_say_what_it_is(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: bsd-3-clause\n---\n# Tiny\n")
    facts = read_folder_facts(read_hub_folder(folder))
    assert (facts.name, facts.family, facts.quantization) == ("Tiny Coder", "llama", "F32")
    assert (facts.context_tokens, facts.licence) == (512, "bsd-3-clause")
    # The card is no part of the model.
    assert facts.bytes == sum(file.stat().st_size for file in folder.iterdir() if file.name != "README.md")


@pytest.mark.parametrize(
    ("config", "limit", "tokens"),
    [
        ({"n_positions": 64}, None, 64),
        ({"n_ctx": 32}, 99, 32),
        ({}, 99, 99),
        ({"is_encoder_decoder": True}, 10**30, 512),
    ],
)
def test_the_longest_context_has_many_names(folder: Path, config: dict[str, object], limit: int, tokens: int) -> None:
    change(folder / "config.json", max_position_embeddings=None, **config)
    change(folder / "tokenizer_config.json", model_max_length=limit)
    assert read_folder_facts(read_hub_folder(folder)).context_tokens == tokens


def test_a_context_that_no_file_names_is_asked_for(folder: Path) -> None:
    change(folder / "config.json", max_position_embeddings=None)
    with pytest.raises(InvalidInput, match="--context"):
        read_folder_facts(read_hub_folder(folder))
    assert read_folder_facts(read_hub_folder(folder), context_tokens=300).context_tokens == 300


def test_its_vocabulary_has_control_tokens_also_where_they_are_not_marked(folder: Path) -> None:
    vocabulary = read_folder_vocabulary(folder)
    assert vocabulary.tokens == ("a", "b", "</s>", "<|fim_prefix|>", "    ")
    assert [TokenKind(kind).name for kind in vocabulary.kinds] == [
        *("NORMAL", "NORMAL", "CONTROL", "CONTROL", "USER_DEFINED"),
    ]
    assert vocabulary.metadata["tokenizer.ggml.eos_token_id"] == 2


def test_its_tokenizer_cuts_and_pads_nothing(folder: Path) -> None:
    content = read_tokenizer(folder)
    assert (content["truncation"], content["padding"]) == (None, None)


def test_the_end_token_may_be_named_by_the_config_alone(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    change(folder / "config.json", eos_token_id=[1, 2])
    assert read_folder_vocabulary(folder).metadata["tokenizer.ggml.eos_token_id"] == 1


def test_the_chat_template_is_a_file_of_its_own_or_in_the_tokenizers_config(folder: Path) -> None:
    assert chat_template(folder) == ""
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    change(folder / "tokenizer_config.json", chat_template=several)
    assert chat_template(folder) == "D"
    (folder / "chat_template.jinja").write_text("J")
    assert chat_template(folder) == "J"
    assert read_folder_vocabulary(folder).metadata["tokenizer.chat_template"] == "J"


def test_in_the_hubs_cache_it_is_called_as_its_repository(folder: Path, tmp_path: Path) -> None:
    snapshots = tmp_path / "models--Salesforce--codegen-350M-mono" / "snapshots"
    snapshots.mkdir(parents=True)
    blobs = snapshots.parent / "blobs"
    folder.rename(blobs)
    snapshot = snapshots / ("0" * 40)
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    assert folder_name(snapshot) == "codegen-350M-mono"
    assert read_folder_facts(read_hub_folder(snapshot)).name == "codegen-350M-mono"


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _gguf_instead(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "a.gguf").touch()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _header_cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\0\0")


def _endless_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")


def _page(folder: Path) -> None:
    page = b"<html>sign in</html>"
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(page)) + page)


def _shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    safetensors(folder / SHARD.format(1))
    names = {"a.weight": SHARD.format(1), "b.weight": SHARD.format(2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def _own_code(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})


def _quantized(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "gptq"})


def _adapter_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _not_json(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def _unreadable(folder: Path) -> None:
    """A disk that fails, or rights that are missing: every read is an error."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/proc/self/mem")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, "holds no config.json"),
        (_gguf_instead, "a.gguf"),
        (_no_weights, "holds no weights"),
        (_pickle, "pytorch_model.bin, and such files run code"),
        (_cut_short, "is cut short"),
        (_header_cut_short, "is cut short"),
        (_endless_header, "is cut short"),
        (_page, "is not a safetensors file"),
        (_shard_missing, f"lacks {SHARD.format(2)}"),
        (_own_code, "auto_map"),
        (_quantized, "quantized (gptq)"),
        (_adapter_beside, "an adapter beside the model"),
        (_not_json, "is not a JSON object"),
        *([(_unreadable, "cannot be read")] if sys.platform == "linux" else []),
    ],
)
def test_what_cannot_be_loaded_faithfully_is_refused_with_what_to_do(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(PeftDaemonError) as caught:
        read_hub_folder(folder)
    assert message in caught.value.line
    assert caught.value.fix
    assert "\n" not in caught.value.line


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        read_hub_folder(tmp_path / "nowhere")


def test_weights_of_another_type_are_named(folder: Path) -> None:
    safetensors(folder / "model.safetensors", dtype="F8_E4M3", rows=2)
    with pytest.raises(InvalidInput, match="F8_E4M3"):
        read_folder_facts(read_hub_folder(folder))


@pytest.mark.parametrize(
    "content", ["{}", '{"model": 3, "added_tokens": []}', '{"added_tokens": [{"id": 0}]}', "<html>"]
)
def test_a_damaged_tokenizer_is_told(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"tokenizer\.json"):
        read_folder_vocabulary(folder)


def test_a_folder_without_tokenizer_json_is_refused_with_the_command_that_writes_it(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotFound) as caught:
        read_folder_vocabulary(folder)
    assert "AutoTokenizer" in caught.value.fix
