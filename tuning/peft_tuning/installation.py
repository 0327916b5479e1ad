"""The installation that a run belongs to: its settings, its base model and its adapters.

Evaluation uses it too, so this module loads no library of tuning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from peft_core.api_types import Task
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.store import open_store
from peft_daemon.models.verifier import ModelVerifier


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The settings and folders of an installation."""

    settings: Settings
    paths: Paths

    @property
    def entry(self) -> ModelEntry:
        """The base model."""
        return open_catalogue(self.paths).get(self.settings.model)

    @property
    def answers(self) -> tuple[Task, ...]:
        """The tasks that the base model answers: not those for which the settings have another model."""
        named = {Task.INTENT: self.settings.intent_model, Task.EDIT: self.settings.edit_model}
        return tuple(task for task in Task if named.get(task, "") in ("", self.settings.model))

    @property
    def base(self) -> BaseModel:
        """The base model's file; raises NotFound if it is not installed."""
        return BaseModel(self.entry.id, self.entry.sha256, open_store(self.settings, self.paths).path(self.entry))

    def require_intact(self) -> None:
        """Raise UnusableFile if the base's file has changed since it was verified: hours of work depend on it."""
        store, path = open_store(self.settings, self.paths), self.base.path
        if path == store.file(self.entry):
            ModelVerifier(store, self.entry, uses_copy=False).file_to_load()

    def folder(self, name: str) -> Path:
        """Return the folder of a run's checkpoints and results."""
        return self.paths.data / "tuning" / name

    def here(self) -> Self:
        """Return this installation for the calling machine, with the folders and threads of that machine."""
        paths = Paths.from_environment()
        own = resolve(user_file=paths.config_file).settings
        settings = msgspec.structs.replace(self.settings, models_dir=own.models_dir, threads=own.threads)
        return replace(self, settings=settings, paths=paths)

    @property
    def registry(self) -> AdapterRegistry:
        """The adapter registry of this installation."""
        return AdapterRegistry(self.paths.adapters)
