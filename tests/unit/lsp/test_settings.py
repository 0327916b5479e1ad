"""Settings of a client that answers when it pleases."""

from __future__ import annotations

import asyncio

import pytest

from peft_lsp import settings as settings_module
from peft_lsp.settings import SettingsCache


class Client:
    """Answers about ``uri`` when ``answer`` is called for it."""

    def __init__(self) -> None:
        self.asked: dict[str | None, asyncio.Future[object]] = {}
        self.questions: list[str | None] = []
        self.changes = 0

    async def ask(self, uri: str | None) -> object:
        self.questions.append(uri)
        self.asked[uri] = asyncio.get_running_loop().create_future()
        return await self.asked[uri]

    def settings(self, options: object = None) -> SettingsCache:
        def changed() -> None:
            self.changes += 1

        return SettingsCache(options, self.ask, pytest.fail, changed)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "MAX_ANSWER_S", 0.01)


async def test_a_document_is_served_by_general_settings_until_the_client_answers_which_then_counts() -> None:
    client = Client()
    settings = client.settings()
    assert (await settings.of("file:///a.py")).enabled
    assert (await settings.of("file:///a.py")).enabled, "and is not waited for again"
    client.asked["file:///a.py"].set_result({"enabled": False})
    await asyncio.sleep(0)
    assert not (await settings.of("file:///a.py")).enabled
    await asyncio.sleep(0)
    assert client.changes == 1
    assert client.questions == ["file:///a.py"]


async def test_a_request_that_is_cancelled_leaves_the_answer_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "MAX_ANSWER_S", 60)
    client = Client()
    settings = client.settings()
    first, second = (asyncio.create_task(settings.of("file:///a.py")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    client.asked["file:///a.py"].set_result({"enabled": False})
    assert not (await second).enabled


async def test_general_settings_that_come_late_count_unless_newer_ones_were_asked_for() -> None:
    client = Client()
    settings = client.settings({"maxTokens": 11})
    await settings.load()
    assert settings.general.max_tokens == 11
    client.asked[None].set_result({"maxTokens": 22})
    await asyncio.sleep(0.01)
    assert settings.general.max_tokens == 22
    await settings.load()
    stale = client.asked[None]
    newer = asyncio.create_task(settings.load())
    while len(client.questions) < 3:
        await asyncio.sleep(0)
    client.asked[None].set_result({"maxTokens": 44})
    await newer
    stale.set_result({"maxTokens": 33})
    await asyncio.sleep(0.01)
    assert settings.general.max_tokens == 44


async def test_pushed_settings_count_where_the_client_does_not_answer() -> None:
    client = Client()
    settings = client.settings({"maxTokens": 11})
    await settings.load({"maxTokens": 12})
    assert settings.general.max_tokens == 12
