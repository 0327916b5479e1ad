"""Adapters in memory: each is active on the base only for the requests that name it.

A LoRA or IA3 adapter is a set of layers that wrap the base's own. To activate it, these layers replace the base's in
the model; so the base without an adapter is unchanged, and adapters of different methods never mix. A prompt or prefix
adapter is the key-value cache of its virtual tokens. PEFT builds the layers from a config made here of checked values;
it never reads an adapter's own config.

Scale: LoRA's update is multiplied by it; IA3's vectors move from 1 (scale 0) to what was learned (scale 1); the others,
DoRA among them, are on (1) or off (0).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from peft_core.errors import InvalidInput
from peft_daemon.adapters import lora_config, peft_files
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.vectors import EMBEDDINGS_TENSOR
from peft_daemon.engines.torch.base_model import LoadedBase

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import DynamicCache

PEFT_ADAPTER_NAME = "default"
"""PEFT's name for the adapter in each of its layers."""

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, each of shape (1, key-value heads, virtual tokens, size of a head)."""


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """One adapter in memory."""

    rescale: Callable[[float], None]
    """Apply a scale; raises InvalidInput for one that the adapter cannot have."""
    layers: Mapping[str, nn.Module] = field(default_factory=dict)
    """Layers by the name of the module that they replace."""
    virtual: KeysAndValues = ()

    @property
    def virtual_tokens(self) -> int:
        """Number of cache positions before the prompt."""
        return self.virtual[0][0].shape[2] if self.virtual else 0

    def empty_cache(self) -> DynamicCache:
        """Return a cache with only the virtual tokens."""
        from transformers import DynamicCache  # noqa: PLC0415  (seconds)

        return DynamicCache(self.virtual or None)


NO_ADAPTER = LoadedAdapter(rescale=lambda scale: None)
"""The base alone."""


class AdapterCache:
    """The loaded adapters of one base; the least recently used is dropped first. For one thread only."""

    def __init__(self, base: LoadedBase, limit: int) -> None:
        self._base, self._limit = base, limit
        self._loaded: OrderedDict[str, LoadedAdapter] = OrderedDict()
        self._active = NO_ADAPTER
        self._own: dict[str, nn.Module] = {}
        """The base's own modules that are replaced now."""

    @property
    def digests(self) -> list[str]:
        """Digests of the adapters in memory, least recently used first."""
        return list(self._loaded)

    def activate(self, lease: AdapterLease | None) -> LoadedAdapter:
        """Make the base compute with this adapter only; with None or scale 0 the base computes alone.

        Raises InvalidInput for a folder that cannot be loaded or a scale that the adapter cannot have, NotFound for one
        that was removed meanwhile; no adapter is active then.
        """
        wanted = NO_ADAPTER if lease is None or lease.scale == 0 else self._get(lease)
        if wanted is not self._active:
            self._deactivate()
        if lease is not None and wanted is not NO_ADAPTER:
            wanted.rescale(lease.scale)
        if wanted is not self._active:
            for name, layer in wanted.layers.items():
                self._own[name] = self._base.model.get_submodule(name)
                self._base.model.set_submodule(name, layer)
            self._active = wanted
        return wanted

    def _deactivate(self) -> None:
        for name, module in self._own.items():
            self._base.model.set_submodule(name, module)
        self._own.clear()
        self._active = NO_ADAPTER

    def _get(self, lease: AdapterLease) -> LoadedAdapter:
        if lease.digest not in self._loaded:
            self._deactivate()
            try:
                adapter = _load(self._base, lease.path)
            except Exception:
                lease.require_present()
                raise
            while len(self._loaded) >= self._limit:
                self._loaded.popitem(last=False)
            self._loaded[lease.digest] = adapter
        self._loaded.move_to_end(lease.digest)
        return self._loaded[lease.digest]


def _load(base: LoadedBase, folder: Path) -> LoadedAdapter:
    """Load the adapter in a folder of the registry, which was checked at import and has not changed since."""
    try:
        raw = (folder / peft_files.CONFIG_FILE).read_bytes()
        with safe_open(folder / peft_files.WEIGHTS_FILE, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise InvalidInput(f"cannot read the adapter in {folder}", why=str(error), fix="Import it again") from None
    match lora_config.read_config(raw).get("peft_type"):
        case "LORA":
            return _lora(base, folder, raw, shapes)
        case "IA3":
            return _ia3(base, folder, shapes)
        case "PROMPT_TUNING":
            return LoadedAdapter(_only_whole("prompt tuning"), virtual=_prompt(base, folder))
        case "PREFIX_TUNING":
            return LoadedAdapter(_only_whole("prefix tuning"), virtual=_prefix(base, folder))
        case other:
            raise InvalidInput(f"the torch engine does not serve adapters of the type {other!r}")


def _lora(base: LoadedBase, folder: Path, raw: bytes, shapes: Iterable[str]) -> LoadedAdapter:
    from peft import LoraConfig  # noqa: PLC0415  (seconds)

    found = lora_config.parse_lora_config(raw)
    config = LoraConfig(
        r=found.rank,
        lora_alpha=found.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        use_rslora=found.rslora,
        use_dora=found.dora,
        rank_pattern=dict(found.rank_pattern),
        alpha_pattern=dict(found.alpha_pattern),
        target_modules=_modules(shapes, ".lora_A.weight"),
        inference_mode=True,
    )
    layers = _layers(base, folder, config)
    if found.dora:
        return LoadedAdapter(_only_whole("DoRA"), layers)
    learned = {name: layer.scaling[PEFT_ADAPTER_NAME] for name, layer in layers.items()}

    def rescale(scale: float) -> None:
        for name, layer in layers.items():
            layer.scaling[PEFT_ADAPTER_NAME] = learned[name] * scale

    return LoadedAdapter(rescale, layers)


def _ia3(base: LoadedBase, folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> LoadedAdapter:
    from peft import IA3Config  # noqa: PLC0415  (seconds)

    inputs = {name: shape for name, shape in shapes.items() if shape[0] == 1}
    config = IA3Config(
        target_modules=_modules(shapes, ".ia3_l"),
        feedforward_modules=_modules(inputs, ".ia3_l"),
        inference_mode=True,
    )
    layers = _layers(base, folder, config)
    learned = {name: layer.ia3_l[PEFT_ADAPTER_NAME].detach().clone() for name, layer in layers.items()}

    def rescale(scale: float) -> None:
        for name, layer in layers.items():
            layer.ia3_l[PEFT_ADAPTER_NAME].data.copy_(learned[name] if scale == 1 else 1 + scale * (learned[name] - 1))

    return LoadedAdapter(rescale, layers)


def _modules(tensors: Iterable[str], suffix: str) -> list[str]:
    """Return the full names of the modules that have a tensor with this suffix."""
    prefix = "base_model.model."
    return sorted(name.removeprefix(prefix).removesuffix(suffix) for name in tensors if name.endswith(suffix))


def _layers(base: LoadedBase, folder: Path, config: PeftConfig) -> dict[str, Any]:
    """Have PEFT build its layers on the base, take them off again, and return them by module name."""
    from peft import PeftModel  # noqa: PLC0415  (seconds)
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415  (seconds)

    layers: dict[str, Any] = {}
    try:
        PeftModel.from_pretrained(base.model, str(folder), config=config, local_files_only=True).eval()
    finally:
        for name, module in list(base.model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                layers[name] = module
                base.model.set_submodule(name, module.get_base_layer())
        if hasattr(base.model, "peft_config"):
            del base.model.peft_config
    return layers


def _prompt(base: LoadedBase, folder: Path) -> KeysAndValues:
    """Compute the base's keys and values for the learned embeddings; they do not depend on the prompt."""
    from transformers import DynamicCache  # noqa: PLC0415  (seconds)

    cache = DynamicCache()
    with torch.inference_mode():
        base.model(inputs_embeds=_virtual_rows(base, folder)[None], past_key_values=cache, use_cache=True)
    return tuple((keys, values) for keys, values, _ in cache)


def _prefix(base: LoadedBase, folder: Path) -> KeysAndValues:
    """Return the learned keys and values, which PEFT stores as (tokens, layers · 2 · heads · size)."""
    config, rows = base.model.config, _virtual_rows(base, folder)
    own = 1 if getattr(config, "multi_query", False) else config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or own
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = rows.view(len(rows), config.num_hidden_layers, 2, heads, size).permute(1, 2, 3, 0, 4)
    return tuple((keys[None].contiguous(), values[None].contiguous()) for keys, values in layers)


def _virtual_rows(base: LoadedBase, folder: Path) -> Tensor:
    """Read one row per virtual token, on the base's device and in its number type."""
    embedding = base.model.get_input_embeddings().weight
    assert isinstance(embedding, Tensor)  # noqa: S101  (torch's types say less)
    return load_file(folder / peft_files.WEIGHTS_FILE)[EMBEDDINGS_TENSOR].to(embedding.device, embedding.dtype)


def _only_whole(method: str) -> Callable[[float], None]:
    def rescale(scale: float) -> None:
        if scale != 1:
            raise InvalidInput(
                f"an adapter of {method} cannot have the scale {scale:g}",
                why="what it learned has no meaning in parts",
                fix="Use scale 1, or 0 for the base alone",
            )

    return rescale
