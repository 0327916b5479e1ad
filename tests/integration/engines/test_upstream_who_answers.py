"""A daemon before an upstream that is played: who answered, what stays on this machine, and where its key is from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import keyring
import pytest

from peft_core.paths import Paths
from peft_core.status_types import DaemonStatus, UpstreamStatus
from peft_daemon.engines.upstream import keys, options
from support.memory_keyring import MemoryKeyring
from support.played_upstream import PlayedUpstream, Route, events_answer, json_answer, played_upstream
from support.second_model import ID as SECOND_ID
from support.second_model import second_model
from support.served_gguf import served_gguf

TEAM_MODEL, KEY = "team-7b", "sk-of-the-team"
ROUTES: dict[str, Route] = {
    "/v1/models": lambda _: json_answer({"data": [{"id": TEAM_MODEL}]}),
    "/v1/completions": lambda _: events_answer(
        {"choices": [{"text": "served"}]}, {"choices": [{"text": "", "finish_reason": "stop"}]}, "[DONE]"
    ),
}


@pytest.fixture
async def team() -> AsyncIterator[PlayedUpstream]:
    async with played_upstream(dict(ROUTES)) as server:
        yield server


@pytest.fixture
def memory_keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = keyring.get_keyring()
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "support.memory_keyring.MemoryKeyring")
    keyring.core.init_backend()
    MemoryKeyring.kept.clear()
    yield
    keyring.set_keyring(before)


def settings_for(server: PlayedUpstream) -> dict[str, str]:
    return {"engine": "upstream", "upstream_url": server.url}


def upstream_of(status: DaemonStatus) -> UpstreamStatus:
    assert status.engine.upstream is not None
    return status.engine.upstream


async def test_an_answer_says_which_model_wrote_it(team: PlayedUpstream, tmp_path: Path) -> None:
    def agree(paths: Paths) -> None:
        options.agree(paths, team.url)

    async with served_gguf(tmp_path, prepare_home=agree, **settings_for(team)) as served:
        answer = (await served.complete(document="a")).json()
        assert (answer["model"], answer["text"]) == (TEAM_MODEL, "served")
        # An earlier answer that is used again was written there too.
        again = (await served.complete(document="a")).json()
        assert (again["model"], again["origin"]) == (TEAM_MODEL, "kept")
        infill = await served.client.post("/infill", json={"input_prefix": "x = ", "input_suffix": "\n"})
        assert infill.json()["model"] == TEAM_MODEL
        del team.routes["/v1/completions"]
        local = (await served.complete(document="b", max_tokens=5)).json()
        assert local["model"] == "tiny" and local["text"] != "served"


async def test_a_model_for_sentences_stays_on_this_machine(team: PlayedUpstream, tmp_path: Path) -> None:
    second = second_model(tmp_path)

    def prepare(paths: Paths) -> None:
        options.agree(paths, team.url)
        second.add(paths)

    async with served_gguf(tmp_path, prepare_home=prepare, intent_model=SECOND_ID, **settings_for(team)) as served:
        answer = (await served.complete(task="intent", intent="add two numbers")).json()
        assert answer["model"] == SECOND_ID and not team.to("/v1/completions")
        status = await served.status()
        assert status.intent_engine is not None and status.intent_engine.upstream is None
        assert (await served.complete()).json()["model"] == TEAM_MODEL
        assert upstream_of(await served.status()).answered == len(team.to("/v1/completions")) == 1


@pytest.mark.usefixtures("memory_keyring")
async def test_the_key_of_the_systems_keyring_is_sent_and_shown_nowhere(
    team: PlayedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(paths: Paths) -> None:
        options.agree(paths, team.url)
        keys.login(paths, team.url, KEY)

    async with served_gguf(tmp_path, prepare_home=prepare, **settings_for(team)) as served:
        assert (await served.complete()).json()["text"] == "served"
        assert {request.headers["authorization"] for request in team.requests} == {f"Bearer {KEY}"}
        team.routes["/v1/completions"] = lambda _: json_answer({"error": {"message": f"bad key {KEY}"}}, 401)
        refused = await served.complete(document="b", max_tokens=5)
        status = await served.status()
        assert keys.LOGIN_COMMAND in status.engine.fix
        assert KEY not in refused.text + str(status) + caplog.text
