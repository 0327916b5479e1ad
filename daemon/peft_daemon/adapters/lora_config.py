"""``adapter_config.json`` of a LoRA: read what matters for inference, and refuse what cannot be served.

The file is not trusted. Keys that matter are read and checked. Keys that only matter in training and keys that name
Python code are ignored. Keys of features that no engine here computes must be off. An unknown key, for example of a
later PEFT, is ignored if it is off and refused by name if it is set. The keys are those of ``peft.LoraConfig`` 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import msgspec

from peft_core.errors import InvalidInput
from peft_daemon.adapters.peft_files import MERGE_INSTEAD

TRAINING_ONLY_KEYS = frozenset(
    {
        "task_type",
        "peft_version",
        "revision",
        "inference_mode",
        "exclude_modules",
        "lora_dropout",
        "layers_to_transform",
        "layers_pattern",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
        "loftq_config",
        "corda_config",
        "lora_ga_config",
        "runtime_config",
        "ensure_weight_tying",
    }
)
"""Keys that do not influence a trained adapter's output."""

READ_KEYS = frozenset(
    {
        "peft_type",
        "base_model_name_or_path",
        "target_modules",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "init_lora_weights",
    }
)

UNSUPPORTED_KEYS = {
    "bias": "it also trains the layers' biases",
    "lora_bias": "it adds biases to lora_B",
    "modules_to_save": "it replaces whole modules of the base",
    "trainable_token_indices": "it changes rows of the embedding",
    "fan_in_fan_out": "its weights are stored transposed",
    "alora_invocation_tokens": "it applies only after an invocation sequence",
    "layer_replication": "it changes the number of layers",
    "target_parameters": "it changes expert parameters directly",
    "use_qalora": "QA-LoRA pools the inputs in groups",
    "use_bdlora": "its factors are block-diagonal",
    "arrow_config": "it routes between adapters",
    "kasa_config": "it truncates the base's weights",
    "monteclora_config": "it samples its weights",
    "velora_config": "it is a variant of LoRA",
    "megatron_config": "it describes a model-parallel base",
}
"""Keys that must be off, each with what it does that no engine here computes."""

KNOWN_KEYS = READ_KEYS | TRAINING_ONLY_KEYS | UNSUPPORTED_KEYS.keys()

CODE_KEYS = frozenset({"auto_mapping", "auto_map"})
"""Keys that name Python classes to import; never used. PEFT writes ``auto_mapping`` in each config without a task."""

SUPPORTED_INITIALIZATIONS = frozenset({"gaussian", "eva", "orthogonal"})
"""Accepted beside true and false: initializations that leave the base's weights as they are."""

MAX_RANK = 4096

_PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True)
class LoraConfig:
    """The part of a config that decides what a trained LoRA computes."""

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    """Weight-decomposed (arXiv:2402.09353): more than a GGUF adapter can express."""
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base: str
    """``base_model_name_or_path``: a hint, never a path to open."""

    def rank_of(self, module: str) -> int:
        """Return the rank of the module with this dotted name."""
        return next((rank for key, rank in self.rank_pattern.items() if _matches(key, module)), self.rank)

    def alpha_of(self, module: str) -> float:
        """Return alpha of that module."""
        return next((alpha for key, alpha in self.alpha_pattern.items() if _matches(key, module)), self.alpha)

    def scale_of(self, module: str) -> float:
        """Return the factor of lora_B @ lora_A: alpha/r, or alpha/sqrt(r) for rsLoRA (arXiv:2312.03732)."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (sqrt(rank) if self.rslora else rank)


def read_config(raw: bytes) -> dict[str, Any]:
    """Decode an ``adapter_config.json`` of any method; raises InvalidInput if it is not a JSON object."""
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "adapter_config.json is not a JSON object", why=str(error), fix="Save the adapter again with PEFT"
        ) from None


def is_off(value: object) -> bool:
    """Whether the value of a key switches nothing on: null, false, 0 or empty."""
    return value is None or value in (False, "", [], {})  # False equals 0 and 0.0


def refuse_unknown(values: Mapping[str, Any], known: Set[str]) -> None:
    """Raise InvalidInput naming the first key of a config that is not in ``known`` and not off."""
    for key in sorted(values.keys() - known - CODE_KEYS):
        if not is_off(values[key]):
            raise InvalidInput(
                f"unknown key '{key}' in adapter_config.json is set to {_short(values[key])}",
                why="it may change what the adapter computes",
                fix=f"If it has no effect on this adapter, delete '{key}' from the file; else train without it",
            )


def ignored_keys(values: Mapping[str, Any], known: Set[str]) -> list[str]:
    """Return the ignored keys of an accepted config, sorted: unknown ones, and names of Python code."""
    return sorted(key for key in values.keys() - known if key not in CODE_KEYS or values[key] is not None)


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_lora_config(raw: bytes) -> LoraConfig:
    """Read the ``adapter_config.json`` of a LoRA.

    Raises InvalidInput naming the key that cannot be accepted.
    """
    values = read_config(raw)
    _refuse(values)
    patterns = {key: _pattern(values, key) for key in ("rank_pattern", "alpha_pattern")}
    return LoraConfig(
        rank=_rank("r", values.get("r")),
        alpha=_alpha("lora_alpha", values.get("lora_alpha")),
        rslora=_boolean(values, "use_rslora"),
        dora=_boolean(values, "use_dora"),
        rank_pattern={key: _rank(f"rank_pattern['{key}']", v) for key, v in patterns["rank_pattern"].items()},
        alpha_pattern={key: _alpha(f"alpha_pattern['{key}']", v) for key, v in patterns["alpha_pattern"].items()},
        base=str(values.get("base_model_name_or_path") or ""),
    )


def _refuse(values: Mapping[str, Any]) -> None:
    if values.get("peft_type") != "LORA":
        raise InvalidInput(
            f"peft_type is {values.get('peft_type')!r}",
            why="that is no LoRA",
            fix="Save the adapter again with PEFT",
        )
    refuse_unknown(values, KNOWN_KEYS)
    for key, effect in UNSUPPORTED_KEYS.items():
        if not is_off(values.get(key)) and (key, values[key]) != ("bias", "none"):
            raise InvalidInput(
                f"'{key}' is on in adapter_config.json",
                why=f"{effect}, which no engine here serves",
                fix=f"Train without '{key}', or {MERGE_INSTEAD}",
            )
    start = values.get("init_lora_weights", True)
    if not isinstance(start, bool) and not (isinstance(start, str) and start in SUPPORTED_INITIALIZATIONS):
        raise InvalidInput(
            f"init_lora_weights is {start!r}",
            why="that initialization changes the base's weights, so the adapter does not fit the base as released",
            fix="Save it with `path_initial_model_for_weight_conversion`, which turns it into a plain LoRA",
        )


def _matches(key: str, module: str) -> bool:
    return module == key or module.endswith("." + key)


def _pattern(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    pattern = values.get(key) or {}
    if not isinstance(pattern, dict):
        raise InvalidInput(f"{key} is not an object", fix="Save the adapter again with PEFT")
    for name in pattern:
        # PEFT reads these as regular expressions, which would let a file take unbounded time here.
        if not _PLAIN.fullmatch(name):
            raise InvalidInput(
                f"{key} has the key {name!r}",
                why="only plain module names such as 'q_proj' or 'layers.3.mlp.up_proj' are accepted",
                fix="Train with plain names",
            )
    return pattern


def _rank(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise InvalidInput(f"{key} is {value!r}", why=f"a rank is an integer from 1 to {MAX_RANK}")
    return value


def _alpha(key: str, value: object) -> float:
    # Zero would not switch the adapter off: llama.cpp reads alpha 0 as "scale 1".
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6 or not isfinite(value):
        raise InvalidInput(f"{key} is {value!r}", why="alpha is a number above 0 and below 1,000,000")
    return float(value)


def _boolean(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{key} is {value!r}", why="it must be true or false")
    return bool(value)
