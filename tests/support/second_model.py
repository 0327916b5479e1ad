"""A second tiny model beside that of ``served_gguf``: other weights, so that its answers show which one was asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from peft_core.paths import Paths
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.store import ModelStore
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.tiny_entry import HUB, tiny_entry

ID = "tiny-sentences"


@dataclass(frozen=True)
class SecondModel:
    """Its file, installed in the store below ``root``, where ``served_gguf`` looks for models."""

    base: BaseModel
    root: Path

    def add(self, paths: Paths) -> None:
        """Add it to the catalogue of a home."""
        open_catalogue(paths).add(_entry(self.base))

    def adapter(self, paths: Paths, name: str, seed: int = 7) -> None:
        """Import an adapter for it, trained for every task."""
        AdapterRegistry(paths.adapters).import_(
            write_peft(self.root / name, lora(seed=seed)), name=name, base=self.base
        )


def second_model(root: Path) -> SecondModel:
    """Install it."""
    given = TinyModel.random(seed=11).write(root / "second.gguf")
    entry = _entry(given)
    installed = ModelStore(root / "models", offline=True).pull(entry, local=given.path)
    return SecondModel(BaseModel(ID, entry.sha256, installed.path), root)


def _entry(base: BaseModel) -> ModelEntry:
    return msgspec.structs.replace(tiny_entry(base.path.read_bytes(), HUB), id=ID, file="second.gguf")
