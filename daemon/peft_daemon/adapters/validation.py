"""Whether a PEFT folder is a LoRA that this base can be served with: names, pairs, ranks, shapes, numbers, origin.

Works on a folder that ``peft_files.take`` filled; reads the base's header only. What passes here can be exported
without a further check, unless it is a DoRA. Other methods are checked in ``vectors``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import msgspec

from peft_core.api_types import LLAMACPP, TORCH
from peft_core.errors import Conflict, InvalidInput
from peft_core.gguf.header import GgufHeader, read_header
from peft_daemon.adapters import lora_config, peft_files
from peft_daemon.adapters.digest import adapter_digest
from peft_daemon.adapters.facts import AdapterFacts
from peft_daemon.adapters.lora_config import LoraConfig
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.tensors import Tensor, read_tensors

ARCHITECTURES = frozenset({"qwen2", "qwen3", "llama"})
"""Those whose conversion to GGUF keeps linear layers as they are, up to the row order ``gguf_export`` knows."""

TORCH_ARCHITECTURES = frozenset({"qwen2", "llama"})
"""Those of them whose GGUF files the torch engine reads."""

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
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_((?P<factor>[AB])\.weight|(?P<m>magnitude_vector))")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/(?P<model>[\w.-]+)")
_REPACKAGED = "If it was trained on the same weights under another name, correct base_model_name_or_path"


@dataclass(frozen=True)
class BaseModel:
    """The model file an adapter is to be served on."""

    id: str
    sha256: str
    path: Path


@dataclass(frozen=True)
class LoraModule:
    """One changed linear layer: its output gains ``scale * b @ (a @ input)``.

    ``a`` is (rank, inputs), ``b`` is (outputs, rank); ``weight`` is the base's tensor in the GGUF file. A DoRA also
    sets the length of each row of the changed weight: ``magnitude`` is (outputs,).
    """

    name: str
    weight: str
    scale: float
    a: Tensor
    b: Tensor
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """The inner dimension of the two factors."""
        return self.a.shape[0]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(prod(tensor.shape) for tensor in (self.a, self.b, self.magnitude) if tensor is not None)

    def changes_anything(self) -> bool:
        """Whether both factors have a number other than zero; a DoRA may change lengths alone."""
        return self.magnitude is not None or bool(self.a.to_float32().any() and self.b.to_float32().any())


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter that passed every check."""

    modules: tuple[LoraModule, ...]
    """Sorted by name; never empty."""
    config: LoraConfig
    record: TrainingRecord | None
    base: GgufHeader

    def facts(self) -> AdapterFacts:
        """What a manifest says of it."""
        config, modules = self.config, self.modules
        served = ((LLAMACPP,) if self.has_gguf_form else ()) + (
            (TORCH,) if self.base.architecture in TORCH_ARCHITECTURES else ()
        )
        return AdapterFacts(
            method="dora" if config.dora else "rslora" if config.rslora else "lora",
            engines=served,
            rank=max(module.rank for module in modules),
            alpha=config.alpha,
            targets=tuple(sorted({module.name.rpartition(".")[2] for module in modules})),
            modules=len(modules),
            parameters=sum(module.parameters for module in modules),
        )

    def digest(self, base_sha256: str) -> str:
        """Its content digest."""
        return adapter_digest(self.modules, base_sha256)

    @property
    def has_gguf_form(self) -> bool:
        """Whether llama.cpp can apply it."""
        return not self.config.dora


def validate(folder: Path, base: BaseModel) -> LoraAdapter:
    """Check the LoRA in ``folder`` against ``base``.

    Raises InvalidInput for an adapter nothing should load or no engine can serve, Conflict for one that was made
    for another base.
    """
    config = lora_config.parse((folder / peft_files.CONFIG).read_bytes())
    record = read_record(folder / peft_files.RECORD)
    header = check_origin(config.base, record, base)
    if config.dora and header.architecture not in TORCH_ARCHITECTURES:
        raise InvalidInput(
            f"DoRA adapters for the architecture {header.architecture!r} cannot be served",
            why=f"llama.cpp cannot apply them, and torch reads GGUF files of {', '.join(sorted(TORCH_ARCHITECTURES))}",
            fix="Train without `--dora`",
        )
    found = _by_module(read_tensors(folder / peft_files.WEIGHTS), config)
    modules = tuple(_module(name, found[name], config=config, header=header, base=base) for name in sorted(found))
    if not any(module.changes_anything() for module in modules):
        raise InvalidInput("the adapter changes nothing", why="all its factors are zero", fix="Train it first")
    return LoraAdapter(modules, config, record, header)


def read_record(path: Path) -> TrainingRecord | None:
    """What the tuner wrote down, if anything; raises InvalidInput for a damaged record."""
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainingRecord)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"cannot read {path.name}", why=str(error), fix="Delete it, or export the adapter again"
        ) from None


def check_origin(named: str, record: TrainingRecord | None, base: BaseModel) -> GgufHeader:
    """The base's header, if the adapter was made for this base as far as its record or the ``named`` base tells.

    Raises InvalidInput for a base of an unknown architecture, Conflict for another base.
    """
    header = read_header(base.path)
    if header.architecture not in ARCHITECTURES:
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
    family = _letters(str(header.metadata.get("general.basename", "")))
    if hint and family and family not in _letters(hint["model"]):
        raise Conflict(
            f"the adapter was trained on {named}, not on {header.metadata['general.basename']}",
            fix=f"Import it for its own base with `--base`. {_REPACKAGED}",
        )
    return header


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_module(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, dict[str, Tensor]]:
    """The tensors of each module: ``A``, ``B`` and, for a DoRA, ``magnitude_vector``."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(tensors.items()):
        match = _FACTOR.fullmatch(name)
        if match is None or (match["m"] and not config.dora):
            raise InvalidInput(
                f"unknown tensor '{name}'",
                why=f"a LoRA holds only '{_PREFIX}….lora_A.weight' and '….lora_B.weight'",
                fix="Train without additional modules",
            )
        found.setdefault(match["module"], {})[match["factor"] or match["m"]] = tensor
    if not found:
        raise InvalidInput("the adapter has no tensors", why="it would change nothing", fix="Train it first")
    for module, parts in found.items():
        for part in ("A", "B", "magnitude_vector") if config.dora else ("A", "B"):
            if part not in parts:
                raise InvalidInput(f"'{module}' has no lora_{part}", fix="Save the adapter again with PEFT")
    return found


def gguf_weight(module: str) -> str:
    """The GGUF name of the weight of a linear layer, ``model.layers.3.mlp.up_proj``; empty for any other module."""
    if module == "lm_head":
        return "output.weight"
    match = _LAYER.fullmatch(module)
    return f"blk.{match['index']}.{LINEAR_LAYERS[match['kind']]}.weight" if match else ""


def base_weight(module: str, header: GgufHeader, base: BaseModel) -> tuple[int, int]:
    """Outputs and inputs of a linear layer of the base; raises Conflict when it has none of this name."""
    weight = gguf_weight(module)
    if weight not in header.tensors:
        raise Conflict(
            f"{base.id} has no linear layer '{module}'",
            why=f"the base has {header.hyperparameter('block_count')} layers of the architecture {header.architecture}",
            fix="Import the adapter for the model it was trained on with `--base`",
        )
    outputs, inputs = header.tensors[weight].shape
    return outputs, inputs


def _module(
    name: str, parts: Mapping[str, Tensor], *, config: LoraConfig, header: GgufHeader, base: BaseModel
) -> LoraModule:
    a, b, magnitude = parts["A"], parts["B"], parts.get("magnitude_vector")
    rank = config.rank_of(name)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise InvalidInput(f"the factors of '{name}' do not multiply: {list(b.shape)} by {list(a.shape)}")
    if a.shape[0] != rank:
        raise InvalidInput(f"'{name}' has rank {a.shape[0]}", why=f"adapter_config.json says {rank}")
    outputs, inputs = base_weight(name, header, base)
    if (b.shape[0], a.shape[1]) != (outputs, inputs):
        raise Conflict(
            f"'{name}' maps {a.shape[1]} to {b.shape[0]} values, in {base.id} it maps {inputs} to {outputs}",
            fix="Import the adapter for the model it was trained on with `--base`",
        )
    if magnitude is not None and magnitude.shape != (outputs,):
        raise InvalidInput(f"the magnitudes of '{name}' have the shape {list(magnitude.shape)}, not [{outputs}]")
    for part, tensor in parts.items():
        require_finite(f"{name}.lora_{part}", tensor)
    return LoraModule(name, gguf_weight(name), config.scale_of(name), a, b, magnitude)


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise InvalidInput for NaN or infinity."""
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)

    if not np.isfinite(tensor.to_float32()).all():
        raise InvalidInput(
            f"'{name}' holds NaN or infinity", why="the training diverged", fix="Train with a lower learning rate"
        )
