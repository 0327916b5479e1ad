"""An installation whose base is a tiny random model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from peft_core.files import file_sha256
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models import catalogue
from peft_daemon.models.catalogue import ModelEntry, PromptFormats
from peft_tuning.installation import Installation


class TinyInstallation(Installation):
    """An installation whose base is a tiny file."""

    @property
    def entry(self) -> ModelEntry:
        formats = PromptFormats(fill="qwen-fim-v1", intent="instruct-v1")
        return msgspec.structs.replace(catalogue.entries()[0], id="tiny-qwen2", prompt_formats=formats)

    @property
    def base(self) -> BaseModel:
        path = self.paths.cache / "qwen2.gguf"
        if path.exists():
            return BaseModel("tiny-qwen2", file_sha256(path), path)
        from support.tiny_served import tiny_gguf

        path.parent.mkdir(parents=True)
        return tiny_gguf(path.parent)


def tiny_installation(home: Path) -> TinyInstallation:
    """Return a tiny installation with the home folder ``home``."""
    return TinyInstallation(settings=Settings(), paths=Paths.from_environment({"PEFT_DAEMON_HOME": str(home)}))
