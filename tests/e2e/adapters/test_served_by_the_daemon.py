"""Adapters in a running daemon: imported without a restart, picked per request, never mixed up, never losing one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon
from support.tiny_adapter import ANSWER, PROMPT, TinyAdapter

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(1500)]

TAUGHT = ANSWER.strip()
ASK = {"prefix": PROMPT + "    ", "suffix": "\n", "task": "fill", "max_tokens": 16}


@pytest.fixture(scope="module")
def served(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon of its own: these tests change what adapters it has."""
    home = tmp_path_factory.mktemp("a")
    environment = home_environment(home, models_dir)
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


@pytest.fixture(scope="module")
def imported(served: RunningDaemon, tiny_adapter: TinyAdapter) -> str:
    served.cli("adapters", "import", str(tiny_adapter.peft_dir), "--name", "tiny")
    return "tiny"


@pytest_asyncio.fixture
async def http(served: RunningDaemon) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=served.address.removeprefix("unix:"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=300) as client:
        yield client


async def complete(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await http.post("/v1/complete", json={**ASK, **fields})
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


@pytest.mark.long
async def test_importing_into_a_running_daemon_loses_no_request(
    served: RunningDaemon, tiny_adapter: TinyAdapter, http: httpx.AsyncClient
) -> None:
    pid = (await http.get("/v1/status")).json()["pid"]
    stop = asyncio.Event()
    answers: list[dict[str, Any]] = []

    async def keep_asking() -> None:
        while not stop.is_set():
            answers.append(await complete(http, max_tokens=2, adapter="base"))

    asking = asyncio.create_task(keep_asking())
    arguments = ("adapters", "import", str(tiny_adapter.peft_dir), "--name", "tiny")
    await asyncio.to_thread(served.cli, *arguments)
    taught = await complete(http, adapter="tiny")
    stop.set()
    await asking
    assert taught["text"].strip() == TAUGHT
    assert taught["adapter"]["name"] == "tiny"
    assert answers and all(a["adapter"] is None and TAUGHT not in a["text"] for a in answers)
    assert (await http.get("/v1/status")).json()["pid"] == pid


async def test_no_request_ever_sees_the_adapter_of_another(imported: str, http: httpx.AsyncClient) -> None:
    # Same prompt, alternating weights, all at once: a KV cache or a batch shared by mistake would show.
    with_it = [True, False, False, True, False, True, True, False]
    answers = await asyncio.gather(*(complete(http, adapter=imported if yes else "base") for yes in with_it))
    assert [a["text"].strip() == TAUGHT for a in answers] == with_it


async def test_scale_zero_is_the_base_token_for_token(imported: str, http: httpx.AsyncClient) -> None:
    def nought() -> Any:
        return complete(http, adapter=imported, scale=0.0, max_tokens=24)

    await complete(http, adapter="base", max_tokens=24)  # both then find the prompt in the cache
    base = await complete(http, adapter="base", max_tokens=24)
    assert (await nought())["text"] == base["text"] != ""
    assert (await complete(http, adapter=imported))["text"].strip() == TAUGHT


async def test_it_appears_as_a_model_for_openai_clients(imported: str, served: RunningDaemon) -> None:
    transport = httpx.AsyncHTTPTransport(uds=served.address.removeprefix("unix:"))
    client = openai.AsyncOpenAI(
        base_url="http://localhost/v1", api_key="-", http_client=httpx.AsyncClient(transport=transport, timeout=300)
    )
    assert imported in [m.id async for m in client.models.list()]
    answer = await client.completions.create(model=imported, prompt=PROMPT, max_tokens=16, temperature=0)
    assert answer.choices[0].text.strip() == TAUGHT


async def test_use_picks_it_below_a_repository_only_and_can_be_taken_back(
    imported: str, served: RunningDaemon, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    inside, outside = str(tmp_path / "src" / "a.py"), str(tmp_path.parent / "b.py")
    served.cli("adapters", "use", imported, "--repository", str(tmp_path))
    assert (await complete(http, path=inside))["adapter"]["name"] == imported
    assert (await complete(http, path=outside))["adapter"] is None
    served.cli("adapters", "use", "base", "--repository", str(tmp_path))
    assert (await complete(http, path=inside))["adapter"] is None


async def test_the_route_puts_it_in_use_too(imported: str, http: httpx.AsyncClient) -> None:
    used = await http.post("/v1/adapters/use", json={"name": imported, "task": "fill"})
    assert used.status_code == 200
    assert (await complete(http))["text"].strip() == TAUGHT
    await http.post("/v1/adapters/use", json={"name": "base"})
    assert (await complete(http))["adapter"] is None
    missing = await http.post("/v1/adapters/use", json={"name": "nope"})
    assert missing.status_code == 404


async def test_an_engine_that_dies_comes_back_with_the_adapter(imported: str, http: httpx.AsyncClient) -> None:
    import psutil

    engine = (await http.get("/v1/status")).json()["engine"]["pid"]
    psutil.Process(engine).kill()
    assert (await complete(http, adapter=imported))["text"].strip() == TAUGHT


def test_an_adapter_for_another_base_is_refused(
    served: RunningDaemon, tiny_adapter: TinyAdapter, tmp_path: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_adapter.peft_dir, other)
    (other / "peft-daemon.json").write_text(
        json.dumps({"base": "qwen2.5-coder-1.5b-instruct", "base_sha256": "0" * 64})
    )
    result = served.cli("adapters", "import", str(other), "--name", "other", check=False)
    assert result.returncode == 5
    assert result.stderr.count("\n") == 1
