"""Adapters that only the torch engine serves: taken in by what their tensors say, and never given to llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from peft_core.errors import Conflict, InvalidInput, PeftDaemonError
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.adapters import peft_files
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import (
    FEED_FORWARD,
    HEAD,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    SHAPES,
    TinyModel,
    lora,
    peft_tensors,
)
from support.synthetic_adapter import peft_config as lora_config

UP = "base_model.model.model.layers.0.mlp.up_proj.ia3_l"
DOWN = "base_model.model.model.layers.1.mlp.down_proj.ia3_l"
PREFIX_WIDTH = LAYERS * 2 * KV_HEADS * HEAD
COMMON = {
    **{"auto_mapping": None, "base_model_name_or_path": "", "inference_mode": True, "modules_to_save": None},
    **{"peft_version": "0.21.2", "revision": None, "task_type": "CAUSAL_LM"},
}
VIRTUAL = {"num_virtual_tokens": 3, "num_transformer_submodules": 1, "token_dim": HIDDEN, "num_layers": LAYERS}
CONFIGS: dict[str, dict[str, Any]] = {
    "ia3": COMMON
    | {"peft_type": "IA3", "target_modules": ["down_proj", "up_proj"], "feedforward_modules": ["down_proj"]}
    | {"exclude_modules": None, "fan_in_fan_out": False, "init_ia3_weights": True},
    "prompt": COMMON
    | VIRTUAL
    | {"peft_type": "PROMPT_TUNING", "num_attention_heads": 4, "prompt_tuning_init": "TEXT"}
    | {"prompt_tuning_init_text": "x", "tokenizer_name_or_path": "/no/such/place", "tokenizer_kwargs": None},
    "prefix": COMMON
    | VIRTUAL
    | {"peft_type": "PREFIX_TUNING", "num_attention_heads": KV_HEADS, "encoder_hidden_size": HIDDEN}
    | {"prefix_projection": False, "init_weights": None},
    "dora": lora_config(use_dora=True),
}


def tensors(kind: str) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    if kind == "dora":
        magnitudes = {
            f"base_model.model.{name}.lora_magnitude_vector": rng.normal(size=SHAPES[name.split(".", 3)[3]][0])
            for name in lora()
        }
        return peft_tensors(lora()) | {name: value.astype(np.float32) for name, value in magnitudes.items()}
    shapes: Mapping[str, tuple[int, int]] = {
        "ia3": {UP: (FEED_FORWARD, 1), DOWN: (1, FEED_FORWARD)},
        "prompt": {"prompt_embeddings": (3, HIDDEN)},
        "prefix": {"prompt_embeddings": (3, PREFIX_WIDTH)},
    }[kind]
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path, kind: str, *, config: Mapping[str, Any] = {}, weights: Mapping[str, Any] = {}) -> Path:
    """A PEFT folder of this kind, with some keys and tensors replaced or (None) left out."""
    folder.mkdir(exist_ok=True)
    kept = {name: value for name, value in (tensors(kind) | dict(weights)).items() if value is not None}
    save_file(kept, folder / peft_files.WEIGHTS_FILE)
    (folder / peft_files.CONFIG_FILE).write_text(json.dumps(CONFIGS[kind] | dict(config)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_is_stored_described_and_leased_to_torch_alone(
    registry: AdapterRegistry, base: BaseModel, tmp_path: Path, kind: str
) -> None:
    manifest = registry.import_(write(tmp_path / "in", kind), name="mine", base=base)
    assert (manifest.method, manifest.engines, manifest.gguf_bytes) == (kind, (TORCH,), 0)
    assert manifest.virtual_tokens == (3 if kind in {"prompt", "prefix"} else 0)
    assert manifest.targets == (("down_proj", "up_proj") if kind == "ia3" else manifest.targets)
    assert manifest.parameters == sum(value.size for value in tensors(kind).values())
    lease = registry.lease(manifest, 0.5, engine=TORCH)
    assert (lease.digest, lease.scale) == (manifest.digest, 0.5)
    assert {entry.name for entry in lease.path.iterdir()} == {peft_files.CONFIG_FILE, peft_files.WEIGHTS_FILE}
    with pytest.raises(InvalidInput, match="llamacpp engine") as caught:
        registry.lease(manifest)
    assert "PEFT_DAEMON_ENGINE=torch" in caught.value.fix
    with pytest.raises(InvalidInput, match="no GGUF form"):
        registry.export("mine", tmp_path / "out.gguf", "gguf")
    assert registry.list_adapters()[0].size_bytes == manifest.peft_bytes
    assert registry.import_(write(tmp_path / "again", kind), name="other", base=base).digest == manifest.digest


def test_a_plain_lora_is_leased_to_both_engines(registry: AdapterRegistry, base: BaseModel, peft: Path) -> None:
    manifest = registry.import_(peft, name="mine", base=base)
    assert manifest.engines == (LLAMACPP, TORCH)
    assert registry.lease(manifest, engine=TORCH).path.is_dir()
    assert registry.lease(manifest, engine=LLAMACPP).path.is_file()


@pytest.mark.parametrize("kind", CONFIGS)
def test_another_number_is_another_adapter(
    registry: AdapterRegistry, base: BaseModel, tmp_path: Path, kind: str
) -> None:
    one = registry.import_(write(tmp_path / "one", kind), name="one", base=base)
    changed = dict([next(reversed(tensors(kind).items()))])
    for value in changed.values():
        value.flat[-1] += 1
    other = registry.import_(write(tmp_path / "other", kind, weights=changed), name="other", base=base)
    assert one.digest != other.digest


def test_a_manifest_of_an_earlier_version_is_of_a_lora_both_engines_serve(
    registry: AdapterRegistry, base: BaseModel, peft: Path
) -> None:
    stored = msgspec.json.decode(msgspec.json.encode(registry.import_(peft, name="mine", base=base)))
    old = {key: value for key, value in stored.items() if key not in {"engines", "virtual_tokens", "scale"}}
    assert msgspec.convert(old, Manifest).engines == (LLAMACPP, TORCH)


@pytest.mark.parametrize("kind", CONFIGS)
def test_names_of_code_and_unknown_keys_that_are_off_change_nothing(
    registry: AdapterRegistry, base: BaseModel, tmp_path: Path, kind: str
) -> None:
    plain = registry.import_(write(tmp_path / "plain", kind), name="plain", base=base)
    config = {"auto_mapping": {"parent_library": "evil"}, "of_the_next_peft": False}
    notices: list[str] = []
    other = registry.import_(
        write(tmp_path / "in", kind, config=config), name="mine", base=base, on_notice=notices.append
    )
    assert other.digest == plain.digest
    assert len(notices) == 1 and "auto_mapping" in notices[0] and "of_the_next_peft" in notices[0]


def array(*shape: int, fill: float = 0.5) -> Any:
    return np.full(shape, fill, np.float32)


BAD: dict[str, tuple[str, dict[str, Any], dict[str, Any], type[PeftDaemonError], str]] = {
    "unknown key": ("ia3", {"run_this": 1}, {}, InvalidInput, "unknown key 'run_this'"),
    "key of another method": ("prompt", {"encoder_hidden_size": 8}, {}, InvalidInput, "unknown key"),
    "saved modules": ("prompt", {"modules_to_save": ["lm_head"]}, {}, InvalidInput, "'modules_to_save' is on"),
    "transposed": ("ia3", {"fan_in_fan_out": True}, {}, InvalidInput, "'fan_in_fan_out' is on"),
    "foreign tensor": ("ia3", {}, {"base_model.model.lm_head.weight": array(3)}, InvalidInput, "unknown tensor"),
    "another tensor": ("prefix", {}, {"x": array(3)}, InvalidInput, "unknown tensor 'x'"),
    "no tensors": ("prompt", {}, {"prompt_embeddings": None}, InvalidInput, "has no tensors"),
    "unknown layer": (
        *("ia3", {}, {"base_model.model.model.layers.9.mlp.up_proj.ia3_l": array(96, 1)}, Conflict),
        "has no linear layer 'model.layers.9.mlp.up_proj'",
    ),
    "vector of another width": ("ia3", {}, {UP: array(95, 1)}, Conflict, "has the shape [95, 1]"),
    "vector of one dimension": ("ia3", {}, {UP: array(96)}, Conflict, "has the shape [96]"),
    "only ones": (
        *("ia3", {}, {UP: array(96, 1, fill=1), DOWN: array(1, 96, fill=1)}, InvalidInput),
        "changes nothing",
    ),
    "nan": ("prompt", {}, {"prompt_embeddings": array(3, HIDDEN, fill=np.nan)}, InvalidInput, "NaN"),
    "infinity": ("dora", {}, {f"{UP[:-6]}.lora_magnitude_vector": array(96, fill=np.inf)}, InvalidInput, "NaN"),
    "another count": ("prompt", {"num_virtual_tokens": 4}, {}, InvalidInput, "num_virtual_tokens is 4"),
    "no count": ("prefix", {"num_virtual_tokens": None}, {}, InvalidInput, "num_virtual_tokens is None"),
    "too many": (
        *("prompt", {"num_virtual_tokens": 1025}, {"prompt_embeddings": array(1025, HIDDEN)}, InvalidInput),
        "from 1 to 1024",
    ),
    "another width": ("prompt", {}, {"prompt_embeddings": array(3, 8)}, Conflict, f"it would have {HIDDEN}"),
    "another depth": ("prefix", {"num_layers": 4}, {}, Conflict, "num_layers is 4"),
    "encoder and decoder": ("prefix", {"num_transformer_submodules": 2}, {}, InvalidInput, "an encoder and a decoder"),
    "magnitudes of another layer": (
        *("dora", {}, {f"{UP[:-6]}.lora_magnitude_vector": array(95)}, InvalidInput),
        "not [96]",
    ),
    "another base": ("ia3", {"base_model_name_or_path": "Qwen/Qwen2.5-0.5B"}, {}, Conflict, "was trained on Qwen/"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_one_is_refused_and_nothing_is_stored(
    registry: AdapterRegistry, base: BaseModel, tmp_path: Path, case: str
) -> None:
    kind, config, weights, error, says = BAD[case]
    with pytest.raises(error) as caught:
        registry.import_(write(tmp_path / "in", kind, config=config, weights=weights), name="mine", base=base)
    assert says in caught.value.line
    assert registry.list_adapters() == []


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_base_torch_cannot_read_is_named(registry: AdapterRegistry, tmp_path: Path, kind: str) -> None:
    base = TinyModel.random("phi3").write(tmp_path / "other.gguf")
    with pytest.raises(InvalidInput, match="architecture 'phi3'"):
        registry.import_(write(tmp_path / "in", kind), name="mine", base=base)
