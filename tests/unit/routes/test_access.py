"""What the daemon lets through: hosts of this machine, no web pages, the right token, bodies of a sane size."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from peft_daemon.routes.middleware import AccessMiddleware
from peft_daemon.routes.responses import ERROR_HANDLERS


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def client(token: str | None, max_body: int = 1000) -> httpx.AsyncClient:
    inner = Starlette(
        routes=[Route("/echo", echo, methods=["GET", "POST"]), Route("/health", echo)],
        exception_handlers=ERROR_HANDLERS,
    )
    transport = httpx.ASGITransport(AccessMiddleware(inner, token=token, max_body=max_body))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8765", "localhost", "[::1]:80", "peft-daemon"])
async def test_names_of_this_machine_pass(host: str) -> None:
    async with client(None) as http:
        assert (await http.get("/echo", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
        "0.0.0.0",
        "[::1",
        "localhost@x",
        "[::1].evil.example",
    ],
)
async def test_any_other_host_is_refused_with_the_fix(host: str) -> None:
    async with client(None) as http:
        answer = await http.get("/echo", headers={"Host": host})
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.json()["error"]["fix"]


async def test_a_web_page_is_refused_even_on_the_right_host() -> None:
    async with client(None) as http:
        answer = await http.get("/echo", headers={"Origin": "http://localhost:3000"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Bearer ", "secret", "Basic secret", "Bearer secrets", "Bearer \xff"]
)
async def test_a_wrong_token_is_refused(given: str | None) -> None:
    async with client("secret") as http:
        headers = {"Authorization": given.encode("latin-1")} if given is not None else {}
        answer = await http.get("/echo", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"


async def test_the_right_token_passes_and_health_needs_none() -> None:
    async with client("secret") as http:
        assert (await http.get("/echo", headers={"Authorization": "Bearer secret"})).status_code == 200
        assert (await http.get("/health")).status_code == 200


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length() -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(11):
            yield b"x" * 100

    async with client(None) as http:
        assert (await http.post("/echo", content=b"x" * 1000)).text == "1000"
        assert (await http.post("/echo", content=b"x" * 1001)).status_code == 413
        assert (await http.post("/echo", content=chunks())).status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "1_000"])
async def test_a_nonsense_length_is_refused(length: str) -> None:
    async with client(None) as http:
        request = http.build_request("POST", "/echo", headers={"Content-Length": length})
        assert (await http.send(request)).status_code == 413
