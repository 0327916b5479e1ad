"""The daemon's application without a daemon: its model is played, and nothing is started."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from starlette.applications import Starlette

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon import app as application
from peft_daemon.lifecycle.runtime_info import DaemonInfo
from peft_daemon.models.optimized import ModelFile
from peft_daemon.routes.middleware import Activity
from support.played_daemon import PlayedEngine


class NoStore:
    def file_to_serve(self, model: object, settings: object) -> ModelFile:
        return ModelFile(Path("nowhere"), "0" * 64)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starlette:
    """The application as ``create_app`` puts it together."""
    monkeypatch.setattr(application.factory, "create_engine", lambda *_, **__: PlayedEngine(tmp_path / "script"))
    monkeypatch.setattr(application, "open_store", lambda *_: NoStore())
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    info = DaemonInfo(
        pid=1, created=0.0, address="unix:/nowhere", version="0", protocol=1, config_digest="", started=time.time()
    )
    # Importing those in the background fails here, as there is no model, and says so at any moment.
    return application.create_app(Settings(shipped_adapters=False), paths, info, Activity())
