"""Typing against a real daemon with the real model: what is answered without it, what is joined, what waits ready."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from support.running_daemon import RunningDaemon
from support.waiting import until_answer

pytestmark = pytest.mark.model

ABOVE = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n\n\ndef multiply(a, b):\n    "
BELOW = "\n\n\nprint(add(1, 2), subtract(3, 1), multiply(2, 3))\n"
PATIENT = {"time_budget_ms": 100_000}
"""The machine may be busy with something else."""


def ask(http: httpx.Client, typed: str, document: str, **fields: object) -> dict[str, Any]:
    """The answer behind ``typed``."""
    body = {"prefix": ABOVE + typed, "suffix": BELOW, "document": document, "max_tokens": 32, **PATIENT, **fields}
    answer: dict[str, Any] = http.post("/v1/complete", json=body).raise_for_status().json()
    return answer


def origins(http: httpx.Client) -> dict[str, float]:
    """How many completions came from where, so far."""
    lines = [line for line in http.get("/metrics").text.splitlines() if "completions_total{" in line]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def generations(http: httpx.Client) -> float:
    """How many have ended."""
    return next(
        float(line.rsplit(" ", 1)[1])
        for line in http.get("/metrics").text.splitlines()
        if line.startswith("peft_daemon_generations_total ")
    )


def wait_until_idle(http: httpx.Client, generations_at_least: float = 0) -> None:
    """Wait until so many generations have ended and none runs, not even one that is prepared ahead."""
    deadline = time.monotonic() + 150
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < 1:
        assert time.monotonic() < deadline, "generations that do not end"
        if http.get("/v1/status").json()["active_requests"] or generations(http) < generations_at_least:
            idle_since = time.monotonic()
        time.sleep(0.05)


def test_typing_along_a_suggestion_does_not_ask_the_model(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        whole = ask(http, "", "along")
        assert (whole["text"], whole["origin"]) == ("return a * b", "model")
        before = origins(http).get("kept", 0)
        for length in range(1, len(whole["text"])):
            rest = ask(http, whole["text"][:length], "along")
            assert (whole["text"][:length] + rest["text"], rest["origin"]) == (whole["text"], "kept")
            assert rest["timings"]["prompt_evaluated"] == rest["timings"]["decode_tokens"] == 0
        assert origins(http)["kept"] - before == len(whole["text"]) - 1


def test_the_log_has_no_line_for_each_keystroke(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        ask(http, "", "logged")
    (log,) = daemon.home.rglob("daemon.log")
    assert "peft_daemon.server" in log.read_text()
    assert "HTTP Request" not in log.read_text()


def test_another_document_and_another_adapter_have_answers_of_their_own(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        ask(http, "", "one", adapter="base")
        assert ask(http, "", "other", adapter="base")["origin"] == "model"
        assert ask(http, "", "one", adapter="base", scale=0.5)["origin"] == "kept", "the base has no scale"
        assert ask(http, "", "one", adapter="base")["origin"] == "kept"


def test_what_follows_an_accepted_suggestion_is_ready_when_enter_is_pressed(daemon: RunningDaemon) -> None:
    above = "def mean(numbers):\n    total = sum(numbers)\n    count = len(numbers)\n    "
    body = {
        "prefix": above + "average",
        "suffix": "\n    return average\n",
        "document": "ahead",
        "max_tokens": 24,
        **PATIENT,
    }
    with daemon.http() as http:
        wait_until_idle(http)  # also of what other tests have left
        before = generations(http)
        first = http.post("/v1/complete", json=body).raise_for_status().json()
        assert first["text"].strip()
        accepted = {**body, "prefix": above + "average" + first["text"]}
        wait_until_idle(http, before + 2)
        for typed in ("", "\n    "):
            after = http.post("/v1/complete", json={**accepted, "prefix": accepted["prefix"] + typed})
            assert after.raise_for_status().json()["origin"] == "kept"


async def test_a_key_that_agrees_joins_the_generation_that_runs(daemon: RunningDaemon) -> None:
    transport = httpx.AsyncHTTPTransport(uds=daemon.address.removeprefix("unix:"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as http:
        above = "NUMBERS = [\n    1,\n    2,\n    3,\n"
        body = {"suffix": "", "document": "join", "max_tokens": 96, "single_line": False, **PATIENT}
        first = asyncio.create_task(http.post("/v1/complete", json={**body, "prefix": above}))
        await until_answer(
            lambda: http.get("/v1/status"), lambda now: now.json()["active_requests"], "the first request, at the model"
        )
        second = (await http.post("/v1/complete", json={**body, "prefix": above + "    4"})).json()
        assert (await first).json()["finish_reason"] == "superseded"
    assert second["text"].startswith(",\n    5,\n    6,\n")
    assert second["origin"] == "joined"


def test_when_the_time_has_come_a_beginning_is_shown_and_the_rest_follows(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        body = {
            **{"prefix": "WEEKDAYS = [\n    'Monday',\n    'Tuesday',\n", "suffix": "", "document": "slow"},
            **{"max_tokens": 48, "single_line": False, **PATIENT},
        }
        http.post("/v1/warm", json=body).raise_for_status()
        early = http.post("/v1/complete", json={**body, "show_after_ms": 1}).raise_for_status().json()
        assert early["more"] and early["text"]
        whole = http.post("/v1/complete", json=body).raise_for_status().json()
    assert not whole["more"]
    assert whole["text"].startswith(early["text"])
    assert len(whole["text"]) > len(early["text"])
    assert whole["origin"] == "joined"


def test_a_warmed_prompt_is_not_read_again(daemon: RunningDaemon) -> None:
    lines = "".join(f"VALUE_{n} = {n * n}\n" for n in range(60))
    body = {"prefix": lines + "VALUE_", "suffix": "\n", "document": "warm", "max_tokens": 4, **PATIENT}
    with daemon.http() as http:
        warmed = http.post("/v1/warm", json=body).raise_for_status().json()
        assert warmed["warm"]
        assert warmed["timings"]["prompt_evaluated"] > 200
        answer = http.post("/v1/complete", json=body).raise_for_status().json()
        assert answer["origin"] == "model"
        assert answer["timings"]["prompt_evaluated"] <= 2
        assert http.post("/v1/warm", json={**body, "document": None}).status_code == 400
