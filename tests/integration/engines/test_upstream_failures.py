"""What happens when a server is down, slow, somebody else, or of another version, and when the local model steps in."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.scripted_engines import ScriptedEngine
from peft_core.errors import EngineFailed, InvalidInput
from peft_core.status_types import EngineState
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.upstream import engine as upstream_engine
from peft_daemon.engines.upstream.engine import UpstreamEngine, UpstreamOptions
from peft_daemon.engines.upstream.failures import UpstreamAddress, UpstreamFailed
from peft_daemon.engines.upstream.server import UpstreamServer
from support.llama_server import free_port
from support.played_upstream import (
    HTML,
    PlayedAnswer,
    PlayedUpstream,
    Route,
    events_answer,
    json_answer,
    played_upstream,
)

KEY = "sk-very-secret-key"
REQUEST = GenerationRequest((Segment("def f(x):"),), 8)
WORD = events_answer({"choices": [{"text": "served"}]}, {"choices": [{"text": "", "finish_reason": "stop"}]}, "[DONE]")
PAGE = PlayedAnswer([b"<!DOCTYPE html><title>Please log in</title>"], content_type=HTML)
CHECK = "peft-daemon upstream check"


def models(*names: str) -> Route:
    return lambda _: json_answer({"data": [{"id": name} for name in names]})


GOOD: dict[str, Route] = {"/v1/models": models("team-7b"), "/v1/completions": lambda _: WORD}


class OnDemandEngine(ScriptedEngine):
    """A local engine that notes when it is started and stopped."""

    def __init__(self) -> None:
        super().__init__(["local"])
        self.started = self.stopped = 0

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1


def engine_of(url: str, local: OnDemandEngine | None = None, **options: Any) -> UpstreamEngine:
    address = UpstreamAddress(url, KEY, "Correct TEAM_KEY")
    return UpstreamEngine(UpstreamOptions(address, model_id="local", **options), local)


async def text_of(engine: UpstreamEngine, request: GenerationRequest = REQUEST) -> str:
    return "".join([chunk.text async for chunk in engine.generate(request)])


async def until(engine: UpstreamEngine, condition: Callable[[], bool]) -> None:
    """Wait for what the engine's probing does."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def probe_error(routes: dict[str, Route], *, kind: str = "auto", model: str = "") -> UpstreamFailed:
    """The error with which probing a server ends."""
    async with played_upstream(routes) as server:
        client = UpstreamServer(
            UpstreamAddress(server.url, KEY, "Correct TEAM_KEY"), kind=kind, model=model, context_tokens=4096
        )
        try:
            with pytest.raises(UpstreamFailed) as caught:
                facts = await client.probe()
                async for _ in client.generate(facts, REQUEST, model=facts.model):
                    pass
        finally:
            client.close()
    assert "\n" not in caught.value.line and KEY[:9] not in caught.value.line
    return caught.value


async def test_a_server_that_is_down() -> None:
    client = UpstreamServer(UpstreamAddress(f"http://127.0.0.1:{free_port()}"), context_tokens=4096)
    with pytest.raises(UpstreamFailed, match="cannot be reached") as caught:
        await client.probe()
    assert CHECK in caught.value.fix


async def test_a_web_page_in_place_of_a_server() -> None:
    every = dict.fromkeys(("/props", "/api/version", "/version", "/model_info", "/get_model_info", "/v1/models"))
    error = await probe_error({path: lambda _: PAGE for path in every})
    assert "web page" in error.line and "upstream_url" in error.fix


async def test_a_web_page_in_place_of_an_answer() -> None:
    error = await probe_error({**GOOD, "/v1/completions": lambda _: PAGE})
    assert "web page" in error.line and "upstream_url" in error.fix


async def test_a_server_of_another_kind_than_was_set() -> None:
    error = await probe_error(GOOD, kind="vllm")
    assert "is not a server of the kind vllm" in error.line and "upstream_kind" in error.fix


async def test_a_model_that_the_server_does_not_have() -> None:
    error = await probe_error(GOOD, model="other-30b")
    assert "has no model 'other-30b': it has team-7b" in error.line and "upstream_model" in error.fix


async def test_several_models_of_which_none_was_chosen() -> None:
    error = await probe_error({**GOOD, "/v1/models": models("a", "b")})
    assert "serves 2 models" in error.line and "it has a, b" in error.line and "upstream_model" in error.fix


async def test_a_model_of_another_family_than_the_prompts_are_for() -> None:
    def spelled(body: Any) -> PlayedAnswer:
        return json_answer({"tokens": [ord(character) for character in body["prompt"]]})

    routes = {**GOOD, "/version": lambda _: json_answer({"version": "0.11"}), "/tokenize": spelled}
    async with played_upstream(routes) as server:
        engine = engine_of(server.url)
        await engine.start()
        with pytest.raises(UpstreamFailed, match="does not know the control token") as caught:
            await text_of(engine, GenerationRequest((Segment("<|fim_prefix|>", special=True),), 8))
        await engine.stop()
    assert "of another family" in caught.value.why


async def test_a_key_that_the_server_refuses_is_named_by_its_variable_and_not_quoted() -> None:
    refusal = json_answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)
    error = await probe_error({"/v1/models": lambda _: refusal, "/props": lambda _: refusal})
    assert "TEAM_KEY" in error.fix


@pytest.mark.parametrize(
    "answer",
    [
        events_answer("not json"),
        events_answer({"choices": "none"}),
        events_answer({"error": {"message": f"no luck with {KEY}"}}),
        PlayedAnswer([b"data: {"]),
        PlayedAnswer(),
        json_answer({"detail": "upstream\nrequest timeout"}, 504),
        json_answer({"detail": "x" * 190 + KEY}, 500),
        PlayedAnswer([b"x" * 190 + KEY.encode()], 500),
    ],
)
async def test_an_answer_of_another_version(answer: PlayedAnswer) -> None:
    error = await probe_error({**GOOD, "/v1/completions": lambda _: answer})
    assert "peft-daemon upstream check" in error.fix


async def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_that_is_trusted_taken(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here", "-days", "1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run([*command, "-keyout", key, "-out", pem], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    async with played_upstream(GOOD, tls=context) as server:
        client = UpstreamServer(UpstreamAddress(server.url, KEY), context_tokens=4096)
        with pytest.raises(UpstreamFailed, match="certificate verify failed"):
            await client.probe()
        assert server.requests == []
        own = {"PEFT_DAEMON_HOME": str(tmp_path / "home"), "PEFT_DAEMON_UPSTREAM_URL": server.url}
        checking = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("peft-daemon")), "upstream", "check"),
            env={**os.environ, **own, "SSL_CERT_FILE": str(pem)},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await checking.communicate()
    assert checking.returncode == 0 and "team-7b" in said.decode() and "peft-daemon upstream agree" in said.decode()


async def test_the_local_model_answers_while_the_server_is_down_and_the_server_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_engine, "PROBE_PAUSES_S", (0.02,))
    local, routes = OnDemandEngine(), dict[str, Route]()
    async with played_upstream(routes) as server:
        engine = engine_of(server.url, local)
        await engine.start()
        assert local.started == 0
        assert await text_of(engine) == "local"
        status = engine.status()
        assert status.upstream is not None
        assert (status.state, status.upstream.answers, local.started) == (EngineState.READY, False, 1)
        assert "is not a server of a known kind" in status.last_error and CHECK in status.fix
        routes |= GOOD
        await until(engine, lambda: engine.status().upstream.answers)  # type: ignore[union-attr]
        assert await text_of(engine) == "served"
        status = engine.status()
        assert status.upstream is not None and status.last_error == ""
        assert (status.upstream.answered, status.upstream.answered_locally) == (1, 1)
        await engine.stop()
    assert (local.started, local.stopped) == (1, 1)


async def test_the_local_model_answers_when_the_server_is_slow_and_then_at_once() -> None:
    local = OnDemandEngine()
    slow = events_answer(hangs=True)
    async with played_upstream({**GOOD, "/v1/completions": lambda _: slow}) as server:
        engine = engine_of(server.url, local, wait_s=0.2)
        await engine.start()
        assert await text_of(engine, replace(REQUEST, begins_with=" f")) == " flocal"
        assert "wrote nothing within 0.2 s" in engine.status().last_error
        await asyncio.wait_for(server.hung_up.wait(), 10)
        assert await text_of(engine) == "local"
        assert len(server.to("/v1/completions")) == 1, "a server that failed is not asked by the next request"
        await engine.stop()


async def test_the_local_model_answers_while_a_server_that_says_nothing_is_probed() -> None:
    silent = PlayedAnswer(hangs=True)
    async with played_upstream({"/props": lambda _: silent}) as server:
        engine = engine_of(server.url, OnDemandEngine(), wait_s=0.1)
        await engine.start()
        await engine.ready()
        assert await text_of(engine) == "local"
        assert engine.status().state is EngineState.READY
        await engine.stop()


async def test_a_connection_that_ended_while_it_was_unused_is_replaced() -> None:
    async with played_upstream(GOOD) as server:
        server.drops_reused = True
        engine = engine_of(server.url)
        await engine.start()
        assert [await text_of(engine) for _ in range(2)] == ["served", "served"]
        await engine.stop()


async def test_another_model_at_the_same_address_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_engine, "PROBE_INTERVAL_S", 0.0)
    routes = dict(GOOD)
    async with played_upstream(routes) as server:
        engine = engine_of(server.url)
        await engine.start()
        assert await text_of(engine) == "served"
        routes["/v1/models"] = models("team-30b")
        assert await text_of(engine) == "served"
        await until(engine, lambda: engine.status().upstream.model == "team-30b")  # type: ignore[union-attr]
        await engine.stop()


async def test_a_server_that_fails_in_the_middle_is_told_of_and_the_next_request_is_answered() -> None:
    local = OnDemandEngine()
    torn = events_answer({"choices": [{"text": "half"}]})
    async with played_upstream({**GOOD, "/v1/completions": lambda _: torn}) as server:
        engine = engine_of(server.url, local)
        await engine.start()
        with pytest.raises(EngineFailed, match="Send the request again"):
            await text_of(engine)
        assert await text_of(engine) == "local"
        await engine.stop()


async def test_without_a_local_model_the_server_s_failure_is_the_answer() -> None:
    engine = engine_of(f"http://127.0.0.1:{free_port()}")
    await engine.start()
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await engine.ready()
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        await text_of(engine)
    assert engine.status().state is EngineState.FAILED
    await engine.stop()


async def test_the_key_is_in_no_log_status_or_text_of_a_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = json_answer({"error": {"message": f"bad key {KEY}"}}, 500)
    async with played_upstream({**GOOD, "/v1/completions": lambda _: refusal}) as server:
        engine = engine_of(server.url, OnDemandEngine())
        await engine.start()
        await text_of(engine)
        seen = f"{engine.status()} {UpstreamAddress(server.url, KEY)!r} {caplog.text}"
        await engine.stop()
    assert "answered 500" in seen and KEY not in seen


async def test_a_request_that_is_cancelled_while_the_server_is_probed_leaves_nothing_open() -> None:
    hanging = PlayedAnswer(hangs=True)
    async with played_upstream({"/props": lambda _: hanging}) as server:
        engine = engine_of(server.url)
        await engine.start()
        waiting = asyncio.create_task(text_of(engine))
        await until(engine, lambda: bool(server.requests))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await engine.stop()
        await asyncio.wait_for(server.hung_up.wait(), 10)


async def test_an_adapter_is_asked_for_by_the_server_s_name_and_one_that_it_lacks_is_refused(tmp_path: Path) -> None:
    def asked(played: PlayedUpstream) -> list[str]:
        return [request.body["model"] for request in played.to("/v1/completions")]

    mine = AdapterLease("d" * 64, tmp_path, 1.0, "mine")
    async with played_upstream(GOOD) as server:
        engine = engine_of(server.url, adapters={"mine": "team-7b-mine"})
        await engine.start()
        for lease in (mine, None, AdapterLease(mine.digest, mine.path, 0.0, "mine")):
            await text_of(engine, GenerationRequest(REQUEST.prompt, 8, adapter=lease))
        other = AdapterLease(mine.digest, mine.path, 1.0, "other")
        with pytest.raises(InvalidInput, match="'other' is not on the upstream server"):
            await text_of(engine, GenerationRequest(REQUEST.prompt, 8, adapter=other))
        await engine.stop()
    assert asked(server) == ["team-7b-mine", "team-7b", "team-7b"]
