"""Each request has an id: in its answer, in the log, in `why`, and beside the error that `status` tells of."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from peft_core.errors import EngineFailed
from peft_daemon.daemon_log import MAX_RECENT_ERRORS, REQUEST_ID, JsonFormatter, RecentErrors, TextFormatter
from peft_daemon.engines.base import GenerationChunk, GenerationRequest
from peft_daemon.routes.middleware import RequestIdMiddleware
from support.played_daemon import PlayedEngine

CODE = "unmistakable"
HOLE = {"prefix": f"{CODE} = ", "suffix": "\n"}


class Lines(logging.Handler):
    """Keeps what is written, in a form."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(form)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def written() -> AsyncIterator[Lines]:
    """The log of this process as JSON, in full detail."""
    root, lines = logging.getLogger(), Lines(JsonFormatter())
    before = root.level
    root.addHandler(lines)
    root.setLevel(logging.DEBUG)
    yield lines  # type: ignore[misc]
    root.removeHandler(lines)
    root.setLevel(before)


@pytest.fixture
async def http(app: Starlette, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "script").write_text(json.dumps({f"{CODE} = ": "an_answer"}))
    transport = httpx.ASGITransport(RequestIdMiddleware(app), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as c,
    ):
        yield c


async def test_every_answer_has_an_id_of_its_own(http: httpx.AsyncClient) -> None:
    answers = [
        await http.get("/v1/status"),
        await http.get("/v1/status"),
        await http.get("/nowhere"),
        await http.get("/v1/status", headers={"Origin": "http://example.org"}),
        await http.post("/v1/complete", json={**HOLE, "stream": True}),
    ]
    assert [each.status_code for each in answers] == [200, 200, 404, 403, 200]
    assert len({each.headers["x-request-id"] for each in answers}) == len(answers)


async def test_the_id_is_that_of_the_answer_of_its_lines_and_of_its_decision(
    http: httpx.AsyncClient, written: Lines
) -> None:
    response = await http.post("/v1/complete", json=HOLE)
    request_id = response.headers["x-request-id"]
    assert response.json()["id"] == request_id
    assert (await http.get("/v1/why")).json()["shown"]["decision"]["id"] == request_id
    own = [line for line in map(json.loads, written.lines) if line.get("request") == request_id]
    (ended,) = [line for line in own if line["logger"] == "peft_daemon.requests"]
    assert ended["message"].startswith("POST /v1/complete: 200 in ")
    assert ended["level"] == "debug"
    for line in written.lines:
        assert CODE not in line
        assert "an_answer" not in line


async def test_a_failure_is_in_the_log_and_in_the_status_with_what_to_do(
    http: httpx.AsyncClient, written: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Any, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        raise EngineFailed("the engine died", why="no memory", fix="Close other programs")
        yield GenerationChunk()

    monkeypatch.setattr(PlayedEngine, "generate", fail)
    refused = await http.post("/v1/complete", json=HOLE)
    again = await http.post("/v1/complete", json=HOLE)
    assert (refused.status_code, again.status_code) == (502, 502)
    status = (await http.get("/v1/status")).json()
    error = status["recent_errors"][0]
    assert error["line"] == "the engine died: no memory. Close other programs"
    assert error["times"] == 2
    assert error["request"] == again.headers["x-request-id"]
    assert {each: count for each, count in status["decisions"].items() if count} == {"engine": 2}
    warned = [line for line in map(json.loads, written.lines) if "the engine died" in line["message"]]
    assert [line["request"] for line in warned] == [each.headers["x-request-id"] for each in (refused, again)]


def record(message: str, level: int = logging.WARNING, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("peft_daemon.x", level, __file__, 1, message, None, info)


def test_text_lines_end_with_the_id_and_json_lines_are_one_object() -> None:
    before = REQUEST_ID.set("abc")
    try:
        assert TextFormatter().format(record("it broke")).endswith("WARNING peft_daemon.x: it broke [abc]")
        line = JsonFormatter().format(record("it\nbroke", error=ValueError("no")))
    finally:
        REQUEST_ID.reset(before)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == ("warning", "peft_daemon.x", "it\nbroke")
    assert fields["request"] == "abc"
    assert "ValueError: no" in fields["traceback"]
    assert TextFormatter().format(record("it broke")).endswith("x: it broke")


def test_the_last_errors_are_few_and_the_same_one_is_counted() -> None:
    kept = RecentErrors()
    for number in range(MAX_RECENT_ERRORS + 5):
        kept.handle(record(f"error {number}"))
    for _ in range(3):
        kept.handle(record("it broke", logging.ERROR, ValueError("no")))
    newest, *others = kept.newest_first
    assert (newest.line, newest.times) == ("it broke: ValueError: no", 3)
    assert len(others) == MAX_RECENT_ERRORS - 1
    assert others[0].line == f"error {MAX_RECENT_ERRORS + 4}"
