"""An adapter worked into its base: a model of its own, as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path

from peft_core.api_types import LLAMACPP
from peft_core.errors import Conflict, InvalidInput
from peft_core.files import atomic_folder
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.engines.torch.base_model import Precision, load_gguf
from peft_tuning import methods

MERGEABLE = ("lora", "qlora-4bit", "qlora-8bit", "rslora", "dora", "ia3")


def export_merged(manifest: Manifest, adapter: Path, base: Path, destination: Path) -> None:
    """Write base plus adapter (a PEFT folder), at the manifest's scale, as float16 to ``destination``.

    Raises Conflict when that exists, InvalidInput for prompt and prefix adapters, which change no weights.
    """
    import torch  # noqa: PLC0415  (seconds)
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    if manifest.method not in MERGEABLE:
        raise InvalidInput(
            f"adapter '{manifest.name}' ({manifest.method}) cannot be merged",
            why="it changes no weights of the base",
            fix="Export it with `--format peft`",
        )
    if manifest.scale != 1.0 and LLAMACPP not in manifest.engines:
        raise InvalidInput(f"adapter '{manifest.name}' applies at scale {manifest.scale:g}, which cannot be merged")
    if destination.exists():
        raise Conflict(f"{destination} exists", fix="Give a path that does not exist yet")
    loaded = load_gguf(base, Precision.FLOAT32)
    kind = methods.get("ia3" if manifest.method == "ia3" else "lora")
    model = kind.load(loaded, adapter)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", manifest.scale)
    merged = model.merge_and_unload(safe_merge=True).to(torch.float16)  # type: ignore[operator]
    with atomic_folder(destination) as staged:
        merged.save_pretrained(str(staged), safe_serialization=True)
        loaded.tokenizer.save_pretrained(str(staged))
