"""Settings are used where valid, complained about where not, and asked for once, whenever the client answers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from peft_lsp import settings as settings_module
from peft_lsp.settings import EditorSettings, SettingsCache, read_settings


class Client:
    """Answers about ``uri`` when ``answer`` is called for it."""

    def __init__(self) -> None:
        self.asked: dict[str | None, asyncio.Future[object]] = {}
        self.questions: list[str | None] = []
        self.changes = 0
        self.changed = asyncio.Event()

    async def ask(self, uri: str | None) -> object:
        self.questions.append(uri)
        self.asked[uri] = asyncio.get_running_loop().create_future()
        return await self.asked[uri]

    def settings(self, options: object = None) -> SettingsCache:
        def changed() -> None:
            self.changes += 1
            self.changed.set()

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
    while not client.questions:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    client.asked["file:///a.py"].set_result({"enabled": False})
    assert not (await second).enabled


async def test_general_settings_that_come_late_count_unless_newer_ones_were_asked_for() -> None:
    client = Client()
    settings = client.settings({"maxTokens": 11})
    await settings.load()
    assert settings.general.max_tokens == 11
    client.changed.clear()
    client.asked[None].set_result({"maxTokens": 22})
    await client.changed.wait()
    assert settings.general.max_tokens == 22
    await settings.load()
    stale = client.asked[None]
    newer = asyncio.create_task(settings.load())
    while len(client.questions) < 3:
        await asyncio.sleep(0)
    client.asked[None].set_result({"maxTokens": 44})
    await newer
    stale.set_result({"maxTokens": 33})
    for _ in range(5):
        await asyncio.sleep(0)
    assert settings.general.max_tokens == 44


async def test_pushed_settings_count_where_the_client_does_not_answer() -> None:
    client = Client()
    settings = client.settings({"maxTokens": 11})
    await settings.load({"maxTokens": 12})
    assert settings.general.max_tokens == 12


def test_valid_settings_are_used() -> None:
    raw = {
        "enabled": False,
        "adapter": "mine",
        "maxTokens": 32,
        "timeBudgetMs": 500,
        "disabledLanguages": ["markdown"],
        "disabledFiles": ["*.min.js"],
        "silentIn": ["comment"],
        "delayMs": 300,
        "showAfterMs": 0,
        "eagerness": "low",
        "nextEdits": "on",
        "feedback": False,
        "completion": "always",
    }
    configuration, complaints = read_settings(raw)
    assert msgspec.to_builtins(configuration) == raw
    assert complaints == []


@pytest.mark.parametrize("raw", [None, {}, [], {"enabled": None, "adapter": None}, {"trace": {"server": "verbose"}}])
def test_missing_null_and_foreign_settings_leave_the_defaults(raw: object) -> None:
    assert read_settings(raw) == (EditorSettings(), [])


def test_a_bad_value_is_named_and_the_others_still_count() -> None:
    configuration, complaints = read_settings({"maxTokens": 0, "adapter": "mine", "enabled": "yes"})
    assert configuration == EditorSettings(adapter="mine")
    assert len(complaints) == 2
    assert "'enabled'" in complaints[0]
    assert "'maxTokens' is 0" in complaints[1]


def test_settings_that_are_no_object_are_refused_whole() -> None:
    configuration, complaints = read_settings(["x"])
    assert configuration == EditorSettings()
    assert "list" in complaints[0]


def test_a_language_is_served_unless_it_or_everything_is_switched_off() -> None:
    assert EditorSettings().why_off("file:///a", "python") is None
    assert EditorSettings(enabled=False).why_off("file:///a", "python") is not None
    assert EditorSettings(disabled_languages=["python"]).why_off("file:///a", "python") is not None
    assert EditorSettings(disabled_languages=["cs"]).why_off("file:///a", "csharp") is not None


def test_prose_is_not_served_by_any_of_its_names_until_it_is_taken_out_of_the_list() -> None:
    for language in ("markdown", "plaintext", "text", "gfm"):
        assert EditorSettings().why_off("file:///a", language) is not None
        assert EditorSettings(disabled_languages=["python"]).why_off("file:///a", language) is None


@pytest.mark.parametrize("value", [True, False, None, "counts", "text", "off"])
def test_what_feedback_may_be_and_was_in_earlier_versions_is_understood(value: object) -> None:
    configuration, complaints = read_settings({"feedback": value})
    assert (configuration.feedback, complaints) == (value, [])


def test_half_of_a_surrogate_pair_is_complained_about_like_any_wrong_value() -> None:
    settings, complaints = read_settings({"disabledLanguages": ["\ud800"], "adapter": "\udfff"})
    assert settings == EditorSettings()
    assert len(complaints) == 2


@pytest.mark.parametrize(
    ("patterns", "path", "off"),
    [
        (["*.min.js"], "/home/me/app/a.min.js", True),
        (["vendor/"], "/home/me/app/vendor/deep/a.py", True),
        (["docs/*.py"], "/home/me/app/docs/conf.py", True),
        (["docs/*.py"], "/home/me/app/docs/api/conf.py", False),
        (["/home/me/secret/**"], "/home/me/secret/a.py", True),
        (["/secret/**"], "/home/me/secret/a.py", False),
        (["*.py", "!keep.py"], "/home/me/keep.py", False),
        ([], "/home/me/a.py", False),
    ],
)
def test_patterns_turn_files_off_wherever_they_are(patterns: list[str], path: str, off: bool) -> None:
    settings, complaints = read_settings({"disabledFiles": patterns})
    assert complaints == []
    assert (settings.why_off(f"file://{path}", "python") is not None) is off


def test_a_pattern_that_is_none_is_complained_about_and_turns_nothing_off() -> None:
    settings, (complaint,) = read_settings({"disabledFiles": ["a" * 30_000]})
    assert "disabledFiles" in complaint
    assert settings.why_off("file:///a.py", "python") is None


def test_everything_may_be_shown_however_unsure() -> None:
    settings, complaints = read_settings({"eagerness": "all"})
    assert complaints == []
    assert settings.automatic_eagerness is None
