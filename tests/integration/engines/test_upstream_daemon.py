"""The daemon with a real ``llama-server`` as upstream: who answers, what it says of that, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from peft_core.api_types import Task
from peft_core.errors import Forbidden
from peft_core.paths import Paths
from peft_core.status_types import DaemonStatus, EngineState, UpstreamStatus
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.upstream import engine as upstream_engine
from peft_daemon.engines.upstream import options
from support.llama_server import LlamaServerProcess, llama_server
from support.served_gguf import served_gguf
from support.synthetic_adapter import TinyModel, lora, write_peft

KEY = "sk-of-the-team"


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaServerProcess]:
    """A server with another tiny model than the local one, so that it shows who answered."""
    monkeypatch.setenv("TEAM_KEY", KEY)
    monkeypatch.setattr(upstream_engine, "PROBE_PAUSES_S", (0.05,))
    model = TinyModel.random(seed=5).write(tmp_path / "team.gguf").path
    with llama_server(model, tmp_path / "server.log", context_tokens=512, key=KEY) as server:
        yield server


def settings_for(server: LlamaServerProcess) -> dict[str, str]:
    return {"engine": "upstream", "upstream_url": f"{server.url}/v1", "upstream_key_env": "TEAM_KEY"}


def upstream_of(status: DaemonStatus) -> UpstreamStatus:
    assert status.engine.upstream is not None
    return status.engine.upstream


async def test_nothing_is_sent_without_the_agreement(upstream: LlamaServerProcess, tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="peft-daemon upstream agree"):
        async with served_gguf(tmp_path, **settings_for(upstream)):
            pass


async def test_the_server_answers_and_the_local_model_when_it_is_gone(
    upstream: LlamaServerProcess, tmp_path: Path
) -> None:
    def agree(paths: Paths) -> None:
        options.agree(paths, upstream.url)

    (tmp_path / "alone").mkdir()
    async with served_gguf(tmp_path / "alone") as served:
        locally = (await served.raw()).json()["choices"][0]["text"]
    async with served_gguf(tmp_path, prepare_home=agree, **settings_for(upstream)) as served:
        there = (await served.raw()).json()["choices"][0]["text"]
        assert there and there != locally
        # A sentence, whose format needs no control tokens: the server's model has none.
        sentence = (await served.complete(task="intent", prefix="", intent="add one")).json()
        assert sentence["model"] == upstream_of(await served.status()).model != "tiny"
        status = await served.status()
        assert (status.engine.kind, status.engine.pid, status.engine.state) == ("upstream", None, EngineState.READY)
        now = upstream_of(status)
        assert (now.url, now.kind, now.answers) == (upstream.url, "llama-server", True)
        upstream.process.kill()
        assert (await served.raw()).json()["choices"][0]["text"] == locally
        status = await served.status()
        now = upstream_of(status)
        assert (now.answers, now.answered_locally, status.engine.pid is None) == (False, 1, False)
        assert (await served.complete(max_tokens=7)).json()["model"] == "tiny"
        assert upstream.url in status.engine.last_error and "peft-daemon upstream check" in status.engine.fix
        with upstream.again():
            await served.until(lambda status: upstream_of(status).answers)
            assert (await served.raw()).json()["choices"][0]["text"] == there
        assert KEY not in (await served.client.get("/v1/status")).text


async def test_an_adapter_that_the_server_lacks_is_left_out_and_refused_where_it_is_named(
    upstream: LlamaServerProcess, tmp_path: Path
) -> None:
    def prepare(paths: Paths) -> None:
        options.agree(paths, upstream.url)
        given = TinyModel.random().write(tmp_path / "same.gguf")
        base = BaseModel("tiny", given.sha256, given.path)
        registry = AdapterRegistry(paths.adapters)
        registry.import_(write_peft(tmp_path / "peft", lora(seed=3)), name="mine", base=base)
        registry.use("mine", Task.FILL)

    async with served_gguf(tmp_path, prepare_home=prepare, **settings_for(upstream)) as served:
        answer = (await served.complete()).json()
        assert answer["adapter"] is None
        refused = await served.complete(adapter="mine")
        assert refused.status_code == 400 and "upstream_adapters" in refused.text
        assert (await served.status()).left_out == []
