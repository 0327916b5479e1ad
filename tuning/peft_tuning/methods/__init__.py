"""The seven tuning methods by id, and the export of a model with an adapter merged into it.

The default method is ``lora`` on a CPU and ``qlora-4bit`` on CUDA. A method is an entry of ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.files import atomic_folder
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.engines.torch.base_model import Precision, load_model
from peft_tuning.methods.base import Method
from peft_tuning.methods.full import FULL
from peft_tuning.methods.lora import LORA, QLORA_4BIT, QLORA_8BIT
from peft_tuning.methods.vectors import IA3, PREFIX, PROMPT

METHODS: Mapping[str, Method] = {
    method.id: method for method in (LORA, QLORA_4BIT, QLORA_8BIT, IA3, PROMPT, PREFIX, FULL)
}

WITH_VIRTUAL_TOKENS = ("prompt", "prefix")
"""Methods that put virtual tokens in front of the prompt."""
MERGEABLE = ("lora", "qlora-4bit", "qlora-8bit", "rslora", "dora", "ia3")
"""Values of a manifest's ``method`` that change weights of the base."""


def get(method_id: str) -> Method:
    """Return the method with this id; raises NotFound, which names the known ids."""
    if method_id not in METHODS:
        raise NotFound(
            f"no tuning method '{method_id}'",
            why=f"known methods: {', '.join(METHODS)}",
            fix="Choose one with `--method`",
        )
    return METHODS[method_id]


def default_for(device: str) -> Method:
    """Return LoRA, or on CUDA, where memory is scarce and 4-bit arithmetic fast, QLoRA."""
    return QLORA_4BIT if device.startswith("cuda") else LORA


def export_merged(manifest: Manifest, adapter: Path, base: Path, destination: Path) -> None:
    """Write the base with the adapter (a PEFT folder) merged into it, at the manifest's scale, as float16.

    Raises Conflict if ``destination`` exists, InvalidInput for an adapter that cannot be merged, such as one of prompt
    or prefix tuning, which changes no weights.
    """
    import torch  # noqa: PLC0415  (seconds)
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    if manifest.method not in MERGEABLE:
        raise InvalidInput(
            f"adapter '{manifest.name}' ({manifest.method}) cannot be merged",
            why="it changes no weights of the base",
            fix="Export it with `--format peft`",
        )
    if manifest.scale != 1.0 and (manifest.method == "ia3" or not manifest.scalable):
        raise InvalidInput(f"adapter '{manifest.name}' applies at scale {manifest.scale:g}, which cannot be merged")
    if destination.exists():
        raise Conflict(f"{destination} exists", fix="Give a path that does not exist yet")
    loaded = load_model(base, Precision.FLOAT32)
    kind = get("ia3" if manifest.method == "ia3" else "lora")
    model = kind.load(loaded, adapter)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", manifest.scale)
    merged = model.merge_and_unload(safe_merge=True).to(torch.float16)  # type: ignore[operator]
    with atomic_folder(destination) as staged:
        merged.save_pretrained(str(staged), safe_serialization=True)
        loaded.tokenizer.save_pretrained(str(staged))
