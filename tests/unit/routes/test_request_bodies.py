"""No body of a request, however broken, is more than the client's mistake."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon import app as application
from peft_daemon.lifecycle.runtime_info import DaemonInfo
from peft_daemon.models.optimized import ModelFile
from peft_daemon.routes.middleware import Activity
from support.played_daemon import PlayedEngine

BODILESS = {"/v1/shutdown"}
BROKEN = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 10_000,
    b'{"a": ' * 10_000,
    b'{"unknown": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"prefix": ' + b'{"prefix": ' * 10_000,
]


class NoStore:
    def file_to_serve(self, model: object, settings: object) -> ModelFile:
        return ModelFile(Path("nowhere"), "0" * 64)


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_body_is_400_on_every_route(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application.factory, "create_engine", lambda *_, **__: PlayedEngine(tmp_path / "script"))
    monkeypatch.setattr(application, "open_store", lambda *_: NoStore())
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    info = DaemonInfo(
        pid=1, created=0.0, address="unix:/nowhere", version="0", protocol=1, config_digest="", started=time.time()
    )
    app = application.create_app(Settings(), paths, info, Activity())
    routes = [route.path for route in app.routes if isinstance(route, Route) and "POST" in (route.methods or ())]
    assert {"/v1/complete", "/infill", "/v1/completions", "/v1/adapters/use"} <= set(routes)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in routes:
            if path not in BODILESS:
                answer = await client.post(path, content=body)
                assert answer.status_code == 400, (path, answer.text[:300])
                assert answer.json()["error"]["fix"]
