"""The OpenAPI document describes every route, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from starlette.applications import Starlette
from starlette.routing import Route

from peft_daemon.routes.middleware import OPEN_PATHS
from peft_daemon.routes.openapi import ApiRoute

PAGE = (Path(__file__).parents[3] / "docs/api.md").read_text(encoding="utf-8")


@pytest.fixture
async def document(app: Starlette) -> dict[str, Any]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        served: dict[str, Any] = (await client.get("/openapi.json")).json()
    return served


async def test_every_route_is_in_it_and_nothing_else(app: Starlette, document: dict[str, Any]) -> None:
    served = {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert len(served) == len(app.routes), "each route is one method of one path"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == served


async def test_it_is_an_openapi_document(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


async def test_what_is_answered_without_a_token_is_what_it_says(document: dict[str, Any]) -> None:
    paths = {
        path for path, methods in document["paths"].items() if any(m.get("security") == [] for m in methods.values())
    }
    assert paths == OPEN_PATHS


async def test_each_body_and_each_answer_has_its_types_and_bounds(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    prefix = schemas["CompleteRequest"]["properties"]["prefix"]
    assert prefix == {"type": "string", "maxLength": 2_000_000, "default": ""}
    asked = document["paths"]["/v1/complete"]["post"]
    assert asked["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/CompleteRequest")
    assert asked["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/CompleteResponse")
    assert set(asked["responses"]) == {"200", "400", "401", "403", "404", "405", "409", "413", "502", "503"}


def test_the_page_names_every_route(app: Starlette) -> None:
    named = set(re.findall(r"(/[\w/{}.-]+)", PAGE))
    for route in app.routes:
        assert isinstance(route, ApiRoute)
        assert route.path_format in named, route.path_format
