"""No body of a request, however broken, is more than the client's mistake."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette

from peft_daemon.routes.openapi import ApiRoute

BROKEN = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 10_000,
    b'{"a": ' * 10_000,
    b'{"unknown": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"prefix": ' + b'{"prefix": ' * 10_000,
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_body_is_400_on_every_route(body: bytes, app: Starlette) -> None:
    routes = [route.path for route in app.routes if isinstance(route, ApiRoute) and route.takes is not None]
    assert {"/v1/complete", "/infill", "/v1/completions", "/v1/adapters/use"} <= set(routes)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in routes:
            answer = await client.post(path, content=body)
            assert answer.status_code == 400, (path, answer.text[:300])
            assert answer.json()["error"]["fix"]
