"""IA3 and prefix adapters of the real model, imported and answered by a running daemon with the torch engine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from peft_daemon.engines import torch as loading
from peft_tuning import methods
from support import real_served
from support.made_once import made_once
from support.real_served import ANSWER, KINDS, PROMPT
from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.long, pytest.mark.timeout(900)]

TAUGHT = ANSWER.strip()
SOURCES = (Path(real_served.__file__), Path(methods.__file__).parent, Path(loading.__file__).parent)
"""What decides about the adapters."""
ASK = {"prefix": PROMPT, "suffix": "", "max_tokens": 10}


def make(model_file: Path, out: Path) -> None:
    command = [sys.executable, real_served.__file__, str(model_file), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def served(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon with the torch engine that has an adapter of each kind."""
    home = tmp_path_factory.mktemp("t")
    made = made_once("torch-adapters", model_file, SOURCES, lambda out: make(model_file, out))
    environment = {**home_environment(home, models_dir), "PEFT_DAEMON_ENGINE": "torch"}
    for kind in KINDS:
        run_cli("adapters", "import", str(made / kind), "--name", kind, environment=environment)
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


async def complete(served: RunningDaemon, adapter: str, **fields: Any) -> dict[str, Any]:
    transport = httpx.AsyncHTTPTransport(uds=served.address.removeprefix("unix:"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client:
        body = {"model": adapter, "prompt": PROMPT, "max_tokens": 14, "temperature": 0, **fields}
        answer: dict[str, Any] = (await client.post("/v1/completions", json=body)).raise_for_status().json()
        return answer


async def test_each_request_is_answered_with_its_own_adapter(served: RunningDaemon) -> None:
    names = ["base", "ia3", "prefix", "ia3", "base", "prefix"]
    answers = await asyncio.gather(*(complete(served, name) for name in names))
    texts = [answer["choices"][0]["text"] for answer in answers]
    assert [TAUGHT in text for text in texts] == [name != "base" for name in names]
    with served.http() as http:
        engine = http.get("/v1/status").json()["engine"]
    assert (engine["kind"], engine["state"], len(engine["adapters"])) == ("torch", "ready", 2)


def test_a_completion_in_the_editor_s_protocol_reports_the_adapter(served: RunningDaemon) -> None:
    with served.http() as http:
        body = {**ASK, "task": "fill", "adapter": "ia3"}
        answers = [http.post("/v1/complete", json=body).raise_for_status().json() for _ in range(2)]
    assert answers[0]["adapter"]["name"] == "ia3"
    assert answers[0]["text"] == answers[1]["text"] != ""
    timings = answers[1]["timings"]
    assert (timings["prompt_evaluated"], timings["prompt_reused"]) == (1, timings["prompt_tokens"] - 1)


def test_llama_cpp_refuses_such_an_adapter_and_names_the_setting(served: RunningDaemon) -> None:
    shown = json.loads(served.cli("adapters", "show", "prefix", "--json").stdout)["manifest"]
    assert (shown["engines"], shown["virtual_tokens"], shown["gguf_bytes"]) == (["torch"], 10, 0)
    other = {**served.environment, "PEFT_DAEMON_ENGINE": "llamacpp"}
    refused = run_cli("adapters", "use", "prefix", environment=other, check=False)
    assert refused.returncode == 2
    assert "PEFT_DAEMON_ENGINE=torch" in refused.stderr
