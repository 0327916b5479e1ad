"""Checks that adapters of all methods share: the origin of an adapter, the layers of its base, and finite numbers.

Of the base, a GGUF file or a folder, only headers are read. Module names are transformers'
(``model.layers.3.mlp.up_proj``), as adapters have them. ``lora`` checks LoRAs, ``vectors`` the other methods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from peft_core.errors import Conflict, InvalidInput
from peft_core.gguf import GgufHeader, read_header
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.peft_files import Tensor
from peft_daemon.models.hub_folder import HubFolder, read_hub_folder

ARCHITECTURES = frozenset({"qwen2", "qwen3", "llama"})
"""Architectures whose conversion to GGUF keeps linear layers, up to the row order of ``lora.interleave_halves``.

The torch engine reads GGUF files of the same ones."""

LINEAR_LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The linear layers of a block in these architectures, and what GGUF calls them."""

_LAYER = re.compile(
    rf"model\.layers\.(?P<index>0|[1-9][0-9]{{0,4}})\.(?P<kind>{'|'.join(map(re.escape, LINEAR_LAYERS))})"
)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/(?P<model>[\w.-]+)")
_REPACKAGED = "If it was trained on the same weights under another name, correct base_model_name_or_path"


@dataclass(frozen=True)
class BaseModel:
    """The model file an adapter is to be served on."""

    id: str
    sha256: str
    path: Path


class BaseHeader(Protocol):
    """The layers of a base, without their weights."""

    @property
    def architecture(self) -> str:
        """As GGUF or ``config.json`` names it."""

    @property
    def name(self) -> str:
        """What its makers call the model; empty if its files do not say."""

    @property
    def engines(self) -> tuple[str, ...]:
        """Ids of the engines that run it and apply plain LoRAs."""

    @property
    def encoder_decoder(self) -> bool:
        """Whether it has an encoder."""

    def linear(self, module: str) -> tuple[int, int] | None:
        """Return the outputs and inputs of a linear layer; None if there is none of that name."""

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""

    @property
    def embedding_length(self) -> int:
        """Size of a token's embedding."""

    @property
    def kv_heads(self) -> int:
        """Number of key-value heads of a block."""

    @property
    def head_size(self) -> int:
        """Size of a head's key."""


@dataclass(frozen=True)
class GgufBase:
    """A base in a GGUF file; hyperparameters that it lacks raise InvalidInput."""

    header: GgufHeader

    @property
    def architecture(self) -> str:
        """See ``BaseHeader``."""
        return self.header.architecture

    @property
    def name(self) -> str:
        """See ``BaseHeader``."""
        return str(self.header.metadata.get("general.basename", ""))

    @property
    def engines(self) -> tuple[str, ...]:
        """See ``BaseHeader``."""
        return (LLAMACPP, TORCH)

    @property
    def encoder_decoder(self) -> bool:
        """See ``BaseHeader``."""
        return False

    def linear(self, module: str) -> tuple[int, int] | None:
        """See ``BaseHeader``."""
        tensor = self.header.tensors.get(gguf_weight(module))
        return (tensor.shape[0], tensor.shape[1]) if tensor and len(tensor.shape) == 2 else None

    @property
    def blocks(self) -> int:
        """See ``BaseHeader``."""
        return self.header.hyperparameter("block_count")

    @property
    def embedding_length(self) -> int:
        """See ``BaseHeader``."""
        return self.header.hyperparameter("embedding_length")

    @property
    def kv_heads(self) -> int:
        """See ``BaseHeader``."""
        return self.header.hyperparameter("attention.head_count_kv", self._heads)

    @property
    def head_size(self) -> int:
        """See ``BaseHeader``."""
        return self.header.hyperparameter("attention.key_length", self.embedding_length // self._heads)

    @property
    def _heads(self) -> int:
        if (heads := self.header.hyperparameter("attention.head_count")) > 0:
            return heads
        raise InvalidInput("the base model's file has no attention heads", fix="Name the file of a whole model")


@dataclass(frozen=True)
class FolderBase:
    """A base in a folder in transformers' layout, which only the torch engine runs."""

    folder: HubFolder
    name: str = ""
    engines: tuple[str, ...] = (TORCH,)

    @property
    def architecture(self) -> str:
        """See ``BaseHeader``."""
        return self.folder.family

    @property
    def encoder_decoder(self) -> bool:
        """See ``BaseHeader``."""
        return self.folder.encoder_decoder

    def linear(self, module: str) -> tuple[int, int] | None:
        """See ``BaseHeader``."""
        shape = self.folder.shape(module)
        return (shape[0], shape[1]) if len(shape) == 2 else None

    @property
    def blocks(self) -> int:
        """See ``BaseHeader``."""
        return self._size("num_hidden_layers", "n_layer", "num_layers")

    @property
    def embedding_length(self) -> int:
        """See ``BaseHeader``."""
        return self._size("hidden_size", "n_embd", "d_model")

    @property
    def kv_heads(self) -> int:
        """See ``BaseHeader``."""
        if self.folder.config.get("multi_query") is True:
            return 1
        return self.folder.size("num_key_value_heads") or self._heads

    @property
    def head_size(self) -> int:
        """See ``BaseHeader``."""
        return self.folder.size("head_dim", "d_kv") or self.embedding_length // self._heads

    @property
    def _heads(self) -> int:
        return self._size("num_attention_heads", "n_head", "num_heads")

    def _size(self, *keys: str) -> int:
        if found := self.folder.size(*keys):
            return found
        raise InvalidInput(f"the base's config.json has none of {', '.join(keys)}", fix="Fetch the folder again")


def read_base_header(path: Path) -> BaseHeader:
    """Read the header of a GGUF file or of a folder; raises NotFound or InvalidInput."""
    return FolderBase(read_hub_folder(path)) if path.is_dir() else GgufBase(read_header(path))


def gguf_weight(module: str) -> str:
    """Return the GGUF name of a linear layer's weight, "" for others.

    ``module``: ``model.layers.3.mlp.up_proj``.
    """
    if module == "lm_head":
        return "output.weight"
    match = _LAYER.fullmatch(module)
    return f"blk.{match['index']}.{LINEAR_LAYERS[match['kind']]}.weight" if match else ""


def read_record(path: Path) -> TrainingRecord | None:
    """Read the tuner's record; None if there is none. Raises InvalidInput for a damaged record."""
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainingRecord)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"cannot read {path.name}", why=str(error), fix="Delete it, or export the adapter again"
        ) from None


def check_origin(named: str, record: TrainingRecord | None, base: BaseModel) -> BaseHeader:
    """Return the base's header if nothing shows that the adapter was made for another base.

    ``named`` is the base that the adapter's config names; it counts only without a record. Raises InvalidInput for a
    base of an unknown architecture, Conflict for another base.
    """
    header = read_base_header(base.path)
    if isinstance(header, GgufBase) and header.architecture not in ARCHITECTURES:
        raise InvalidInput(
            f"adapters for the architecture {header.architecture!r} cannot be served here",
            why=f"known are {', '.join(sorted(ARCHITECTURES))}",
            fix="Choose another base with `--base`",
        )
    if record is not None and record.base_sha256:
        if record.base_sha256 != base.sha256:
            raise Conflict(
                f"the adapter was trained on {record.base or 'a model'} ({record.base_sha256[:12]}), not on {base.id} "
                f"({base.sha256[:12]})",
                fix=f"Import it for {record.base} with `--base {record.base}`" if record.base else "",
            )
        return header
    hint = _HUB_NAME.fullmatch(named)
    family = _letters(header.name)
    if hint and family and family not in _letters(hint["model"]):
        raise Conflict(
            f"the adapter was trained on {named}, not on {header.name}",
            fix=f"Import it for its own base with `--base`. {_REPACKAGED}",
        )
    return header


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def base_weight(module: str, header: BaseHeader, base: BaseModel) -> tuple[int, int]:
    """Return the outputs and inputs of a linear layer of the base.

    Raises Conflict if there is no such layer.
    """
    if (found := header.linear(module)) is None:
        raise Conflict(
            f"{base.id} has no linear layer '{module}'",
            why=f"the base has {header.blocks} layers of the architecture {header.architecture}",
            fix="Import the adapter for the model it was trained on with `--base`",
        )
    return found


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise InvalidInput for NaN or infinity."""
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)

    if not np.isfinite(tensor.to_float32()).all():
        raise InvalidInput(
            f"'{name}' holds NaN or infinity", why="the training diverged", fix="Train with a lower learning rate"
        )


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """The part of a manifest that is read from an adapter's files; fields as in ``Manifest``."""

    method: str
    """Used if the adapter's record names no method."""
    engines: tuple[str, ...]
    """Ids of the engines that can serve it."""
    rank: int = 0
    alpha: float = 0.0
    virtual_tokens: int = 0
    targets: tuple[str, ...] = ()
    modules: int = 0
    parameters: int
    scalable: bool
    """Whether scales between 0 and 1 are possible."""


class CheckedAdapter(Protocol):
    """An adapter of any method that passed every check."""

    @property
    def record(self) -> TrainingRecord | None:
        """The tuner's record."""

    @property
    def base(self) -> BaseHeader:
        """Header of the model it was checked against."""

    def facts(self) -> AdapterFacts:
        """Return the part of the manifest that its files give."""

    def digest(self, base_sha256: str) -> str:
        """Return its content digest."""
