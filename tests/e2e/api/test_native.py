"""The native and llama.cpp-compatible routes of a real daemon with the real model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from support.running_daemon import RunningDaemon
from support.waiting import until_answer

pytestmark = pytest.mark.model

HOLE = {"prefix": "def add(a, b):\n    return ", "suffix": "\n\n\nprint(add(1, 2))\n", "max_tokens": 16}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]


def test_complete_fills_the_hole_and_accounts_for_its_time(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        answer = http.post("/v1/complete", json=HOLE).raise_for_status().json()
    assert answer["text"].strip() == "a + b"
    assert (answer["task"], answer["adapter"]) == ("fill", None)
    t = answer["timings"]
    assert t["prompt_tokens"] == t["prompt_evaluated"] + t["prompt_reused"]
    assert t["total_ms"] >= t["first_token_ms"] > 0


def test_a_stream_ends_with_the_whole_and_its_deltas_are_its_beginning(daemon: RunningDaemon) -> None:
    body = {"prefix": "def primes(n):\n    ", "stream": True, "max_tokens": 40, "single_line": False}
    with daemon.http() as http, http.stream("POST", "/v1/complete", json=body) as response:
        *deltas, last = events(response)
    assert last["type"] == "final"
    assert deltas, "a completion of several lines comes in pieces"
    assert last["response"]["text"].startswith("".join(d["text"] for d in deltas))


def test_intent_gives_code_without_fence_or_explanation(daemon: RunningDaemon) -> None:
    body = {"intent": "reverse the string s", "max_tokens": 80}
    with daemon.http() as http:
        answer = http.post("/v1/complete", json=body).raise_for_status().json()
    assert answer["task"] == "intent"
    assert "```" not in answer["text"] and "[::-1]" in answer["text"]
    if answer["finish_reason"] == "stop":
        compile(answer["text"], "generated", "exec")


async def active_requests(http: httpx.AsyncClient) -> int:
    number: int = (await http.get("/v1/status")).json()["active_requests"]
    return number


async def test_the_newest_request_of_a_document_wins_and_all_are_answered(daemon: RunningDaemon) -> None:
    transport = httpx.AsyncHTTPTransport(uds=daemon.address.removeprefix("unix:"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as http:

        async def ask(n: int) -> dict[str, Any]:
            body = {"prefix": f"# {n}\ndef f{n}(x):\n    ", "document": "file:///a.py", "max_tokens": 24}
            answer: dict[str, Any] = (await http.post("/v1/complete", json=body)).raise_for_status().json()
            return answer

        asked = [asyncio.create_task(ask(0))]
        await until_answer(lambda: active_requests(http), bool, "the first request, at the model")
        for n in range(1, 6):
            asked.append(asyncio.create_task(ask(n)))
            await asked[n - 1]  # is answered because this one has come
        answers = await asyncio.gather(*asked)
    reasons = [a["finish_reason"] for a in answers]
    assert reasons[:5] == ["superseded"] * 5
    assert reasons[5] != "superseded"


async def test_hanging_up_frees_the_engine(daemon: RunningDaemon) -> None:
    transport = httpx.AsyncHTTPTransport(uds=daemon.address.removeprefix("unix:"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as http:
        body = {"prefix": "def f():\n    ", "max_tokens": 2000, "single_line": False, "time_budget_ms": 100_000}
        task = asyncio.create_task(http.post("/v1/complete", json=body))
        await until_answer(lambda: active_requests(http), bool, "the request, at the model")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # The model would write for longer.
        await until_answer(lambda: active_requests(http), lambda now: now == 0, "the end of the request")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "nothing to complete"),
        ({"intent": "   "}, 400, "nothing to complete"),
        ({"prefix": "x", "max_tokens": -3}, 400, "max_tokens"),
        ({"prefix": "x", "max_tokens": 10**12}, 400, "max_tokens"),
        ({"prefix": "x", "temperature": 1e308}, 400, "temperature"),
        ({"prefix": "x", "seed": -1}, 400, "seed"),
        ({"prefix": "x", "scale": -1}, 400, "scale"),
        ({"prefix": 3}, 400, "prefix"),
        ({"prefix": "x", "unknown": 1}, 400, "unknown"),
        ({"prefix": "x", "adapter": "no-such"}, 404, "no-such"),
        ({"prefix": "a\0b"}, 400, "binary"),
        ({"prefix": "x" * 2_000_001}, 400, "prefix"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_say_what_is_wrong(daemon: RunningDaemon, body: dict[str, Any], status: int, says: str) -> None:
    with daemon.http() as http:
        for stream in (False, True):
            answer = http.post("/v1/complete", json={**body, "stream": stream})
            assert answer.status_code == status
            error = answer.json()["error"]
            assert says in error["message"]
            assert error["fix"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'{"prefix": "\xff"}'], ids=repr)
def test_bodies_that_are_not_json_are_bad_requests(daemon: RunningDaemon, raw: bytes) -> None:
    with daemon.http() as http:
        assert http.post("/v1/complete", content=raw).status_code == 400


def test_a_20_mb_body_is_too_large(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        answer = http.post("/v1/complete", json={"prefix": "x" * 20_000_000})
    assert answer.status_code == 413
    assert "around the cursor" in answer.json()["error"]["fix"]


def test_unknown_routes_and_methods_answer_in_the_same_shape(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        for method, path, status in (("GET", "/nothing", 404), ("DELETE", "/v1/complete", 405)):
            answer = http.request(method, path)
            assert (answer.status_code, bool(answer.json()["error"]["fix"])) == (status, True)


def test_infill_speaks_llama_cpp(daemon: RunningDaemon) -> None:
    body = {
        "input_prefix": "def mul(a, b):\n",
        "prompt": "    return ",
        "input_suffix": "\n",
        "input_extra": [{"filename": "use.py", "text": "from m import mul\n"}],
        "n_predict": 8,
        "cache_prompt": True,
        "samplers": ["top_k", "infill"],
        "t_max_predict_ms": 60_000,
    }
    with daemon.http() as http:
        whole = http.post("/infill", json=body).raise_for_status().json()
        with http.stream("POST", "/infill", json={**body, "stream": True}) as response:
            pieces = events(response)
    assert whole["content"].lstrip().startswith("a * b")
    assert whole["stop"] is True
    assert pieces[-1]["stop"] is True
    assert "".join(p["content"] for p in pieces).lstrip().startswith("a * b")


def test_infill_with_nothing_to_predict_warms_the_cache(daemon: RunningDaemon) -> None:
    body = {"input_prefix": "import json\n\nDATA = 1\n", "input_suffix": "", "prompt": "x = ", "n_predict": 0}
    with daemon.http() as http:
        http.post("/infill", json=body).raise_for_status()
        again = http.post("/infill", json={**body, "n_predict": 1}).raise_for_status().json()
    assert again["timings"]["prompt_n"] == 1


def test_health_status_and_metrics_tell_the_state(daemon: RunningDaemon) -> None:
    with daemon.http() as http:
        assert http.get("/health").json() == {"status": "ok"}
        status = http.get("/v1/status").json()
        assert status["engine"]["state"] == "ready"
        assert status["memory_bytes"] > 300_000_000
        text = http.get("/metrics").text
    assert 'peft_daemon_requests_total{outcome="stop",route="complete"}' in text
    assert "peft_daemon_prompt_tokens_total" in text
