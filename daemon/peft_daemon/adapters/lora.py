"""LoRA and DoRA adapters: checks of config and tensors, the digest, the sum of several, and the export as GGUF.

A LoRA that passes ``validate_lora`` can be exported without further checks. A DoRA has no GGUF form.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from peft_core.errors import Conflict, InvalidInput
from peft_core.gguf import GgufHeader
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters import lora_config, peft_files
from peft_daemon.adapters.lora_config import LoraConfig
from peft_daemon.adapters.manifest import UNKNOWN, TrainingRecord
from peft_daemon.adapters.peft_files import CONFIG_FILE, DIGEST_FORMAT, RECORD_FILE, WEIGHTS_FILE, Tensor, read_tensors
from peft_daemon.adapters.validation import (
    AdapterFacts,
    BaseHeader,
    BaseModel,
    GgufBase,
    base_weight,
    check_origin,
    gguf_weight,
    read_record,
    require_finite,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PREFIX = "base_model.model."
_FACTOR_PATTERN = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_((?P<factor>[AB])\.weight|(?P<m>magnitude_vector))"
)


@dataclass(frozen=True)
class LoraModule:
    """One changed linear layer: its output gains ``scale * b @ (a @ input)``.

    ``a`` is (rank, inputs), ``b`` is (outputs, rank); ``weight`` is the base's tensor in the GGUF file, empty where it
    has none of a name known here. A DoRA also sets the length of each row of the changed weight: ``magnitude`` is
    (outputs,).
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
        """Number of values in its tensors."""
        return sum(prod(tensor.shape) for tensor in (self.a, self.b, self.magnitude) if tensor is not None)

    def changes_anything(self) -> bool:
        """Whether it can change the output: neither factor is all zero, or it is a DoRA."""
        return self.magnitude is not None or bool(self.a.to_float32().any() and self.b.to_float32().any())


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter that passed every check."""

    modules: tuple[LoraModule, ...]
    """Sorted by name; never empty."""
    config: LoraConfig
    record: TrainingRecord | None
    base: BaseHeader

    def facts(self) -> AdapterFacts:
        """Return the part of the manifest that its files give."""
        config, modules = self.config, self.modules
        served = tuple(each for each in self.base.engines if each != LLAMACPP or self.has_gguf_form)
        return AdapterFacts(
            method="dora" if config.dora else "rslora" if config.rslora else "lora",
            engines=served,
            rank=max(module.rank for module in modules),
            alpha=config.alpha,
            targets=tuple(sorted({module.name.rpartition(".")[2] for module in modules})),
            modules=len(modules),
            parameters=sum(module.parameters for module in modules),
            scalable=not config.dora,
        )

    def digest(self, base_sha256: str) -> str:
        """Return its content digest."""
        return lora_digest(self.modules, base_sha256)

    @property
    def has_gguf_form(self) -> bool:
        """Whether llama.cpp can apply it."""
        return LLAMACPP in self.base.engines and not self.config.dora


def validate_lora(folder: Path, base: BaseModel) -> LoraAdapter:
    """Check the LoRA in ``folder`` against ``base``.

    Raises InvalidInput if its files are damaged or unsafe or no engine can serve it, Conflict if it was made for
    another base.
    """
    config = lora_config.parse_lora_config((folder / peft_files.CONFIG_FILE).read_bytes())
    record = read_record(folder / peft_files.RECORD_FILE)
    header = check_origin(config.base, record, base)
    found = _by_module(read_tensors(folder / peft_files.WEIGHTS_FILE), config)
    modules = tuple(_module(name, found[name], config=config, header=header, base=base) for name in sorted(found))
    if not any(module.changes_anything() for module in modules):
        raise InvalidInput("the adapter changes nothing", why="all its factors are zero", fix="Train it first")
    return LoraAdapter(modules, config, record, header)


def _by_module(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each module: ``A``, ``B`` and, for a DoRA, ``magnitude_vector``."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(tensors.items()):
        match = _FACTOR_PATTERN.fullmatch(name)
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


def _module(
    name: str, parts: Mapping[str, Tensor], *, config: LoraConfig, header: BaseHeader, base: BaseModel
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


def lora_digest(modules: Iterable[LoraModule], base_sha256: str) -> str:
    """Return the content digest of a LoRA as hex sha256.

    Hashed are the base's sha256, and the name, scale and factors of each module. Two adapters have the same digest
    exactly when the same factors act on the same base in the same way; the order of tensors, metadata, names and
    training settings do not count. A header of all names, types and shapes is hashed first, after its length, so that
    two different adapters never give the same bytes to hash.
    """
    ordered = sorted(modules, key=lambda module: module.name)
    header = msgspec.json.encode(
        {
            "format": DIGEST_FORMAT,
            "base": base_sha256,
            "modules": [_header_entry(module) for module in ordered],
        },
        order="sorted",
    )
    total = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for module in ordered:
        total.update(module.a.data)
        total.update(module.b.data)
        if module.magnitude is not None:
            total.update(module.magnitude.data)
    return total.hexdigest()


def _header_entry(m: LoraModule) -> tuple[object, ...]:
    plain = (m.name, float(m.scale).hex(), m.a.dtype, m.a.shape, m.b.dtype, m.b.shape)
    return plain if m.magnitude is None else (*plain, m.magnitude.dtype, m.magnitude.shape)


def combine_loras(parts: Sequence[tuple[LoraAdapter, float]], record: TrainingRecord, folder: Path) -> None:
    """Write the weighted sum of adapters into the existing ``folder``, as one LoRA in PEFT's layout.

    The sum is exact: ``w1 s1 B1 A1 + w2 s2 B2 A2 = [w1 s1 B1, w2 s2 B2] [A1; A2]``, so the rank is the sum of the
    ranks. A module that only some of the adapters change gets zeros for the others. Raises InvalidInput for a DoRA,
    which is not a sum: it also sets the length of each row.
    """
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)
    from safetensors.numpy import save_file  # noqa: PLC0415

    if any(adapter.config.dora for adapter, _ in parts):
        raise InvalidInput("a DoRA cannot be merged with another adapter", why="it also sets the length of each row")
    modules = [{module.name: module for module in adapter.modules} for adapter, _ in parts]
    ranks = [max(module.rank for module in adapter.modules) for adapter, _ in parts]
    tensors = {}
    for name in sorted({name for each in modules for name in each}):
        shape = next(each[name] for each in modules if name in each)
        a, b = [], []
        for mine, rank, (_, weight) in zip(modules, ranks, parts, strict=True):
            down = np.zeros((rank, shape.a.shape[1]), np.float32)
            up = np.zeros((shape.b.shape[0], rank), np.float32)
            if (module := mine.get(name)) is not None:
                down[: module.rank] = module.a.to_float32()
                up[:, : module.rank] = weight * module.scale * module.b.to_float32()
            a.append(down)
            b.append(up)
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.concatenate(a)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.concatenate(b, axis=1)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_bytes(
        msgspec.json.format(msgspec.json.encode(_combined_config(modules, sum(ranks))), indent=2)
    )
    (folder / RECORD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))


def _combined_config(modules: Sequence[dict[str, LoraModule]], rank: int) -> dict[str, object]:
    targets = {name.rpartition(".")[2] for each in modules for name in each}
    # Alpha equal to the rank: the scale is in the factors.
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(targets),
        "inference_mode": True,
    }


def export_lora_gguf(adapter: LoraAdapter, path: Path) -> None:
    """Write ``adapter`` to ``path`` as a GGUF file, which llama.cpp applies per request on top of a quantized base.

    The same adapter gives the same bytes. llama.cpp computes ``W x + (alpha / rank) * lora_b (lora_a x)`` with one
    alpha per file and the rank of each pair; a module with another scale has it folded into its lora_b. Values are
    stored exactly: float16 as float16, which takes half the memory, all else as float32. With float16 llama.cpp also
    rounds each layer's inputs, and a token takes 2 % less time (rank 16 on all layers of a 0.5B model, one thread:
    46.8 ms without an adapter, 52.4 ms with float32, 51.1 ms with float16). Layout: llama.cpp's src/llama-adapter.cpp.
    """
    import gguf  # noqa: PLC0415  (the daemon's request path must not load it)

    if not isinstance(adapter.base, GgufBase):
        raise InvalidInput("an adapter of a folder in transformers' layout has no GGUF form")
    (alpha, _), *_ = Counter(module.scale * module.rank for module in adapter.modules).most_common(1)
    writer = gguf.GGUFWriter(path, adapter.base.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    record = adapter.record or TrainingRecord()
    if base := adapter.config.base or record.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, base)
    if record.licence != UNKNOWN:
        writer.add_license(record.licence)
    for module in adapter.modules:
        stored = _stored_type(module, alpha)
        writer.add_tensor(f"{module.weight}.lora_a", module.a.to_float32().astype(stored))
        writer.add_tensor(f"{module.weight}.lora_b", _gguf_lora_b(module, alpha, adapter.base.header).astype(stored))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    path.chmod(0o600)


def _stored_type(module: LoraModule, alpha: float) -> str:
    """Return the smallest numpy type that holds both factors exactly."""
    folded = module.scale * module.rank != alpha
    return "float16" if module.a.dtype == module.b.dtype == "F16" and not folded else "float32"


def interleave_halves(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key projection from Hugging Face's rotary layout to llama.cpp's for Llama.

    Rotary embedding turns pairs of a head's outputs: Hugging Face pairs output i with i + d/2, llama.cpp's
    ``llama`` architecture 2i with 2i + 1, where d is the size of a head. ``rows`` is (heads * d, anything).
    """
    size = rows.shape[0] // heads
    return rows.reshape(heads, 2, size // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _gguf_lora_b(module: LoraModule, alpha: float, base: GgufHeader) -> NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)

    rows = module.b.to_float32()
    own = module.scale * module.rank
    if own != alpha:
        rows = rows * np.float32(own / alpha)
    if base.architecture == "llama":
        heads = base.hyperparameter("attention.head_count")
        if module.name.endswith(".q_proj"):
            rows = interleave_halves(rows, heads)
        elif module.name.endswith(".k_proj"):
            rows = interleave_halves(rows, base.hyperparameter("attention.head_count_kv", heads))
    return np.ascontiguousarray(rows)
