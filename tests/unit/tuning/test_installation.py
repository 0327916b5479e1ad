"""What a run rests on is looked at before it begins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_core.errors import UnusableFile
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.models.catalogue import open_catalogue
from peft_daemon.models.store import ModelStore
from peft_tuning.installation import Installation
from support.tiny_entry import HUB, tiny_entry


def test_a_base_that_is_not_the_verified_file_is_refused(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_bytes(b"weights" * 1000)
    entry = tiny_entry(given.read_bytes(), HUB)
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})
    open_catalogue(paths).add(entry)
    file = ModelStore(tmp_path / "models", offline=True).pull(entry, local=given).path
    installation = Installation(settings=Settings(model=entry.id, models_dir=str(tmp_path / "models")), paths=paths)
    installation.require_intact()
    info = file.stat()
    file.write_bytes(b"WEIGHTS" * 1000)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert installation.base.path == file, "size and time are the noted ones"
    with pytest.raises(UnusableFile, match="is damaged"):
        installation.require_intact()
