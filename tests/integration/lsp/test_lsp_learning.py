"""An editor asks once whether a repository may be learned, and shows what is learned: real server, real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lsprotocol import types

from peft_core.status_types import LearningChoice
from peft_daemon.learning.state import LearningStore
from support.editor import MODERN, Editor, editor, uri_of
from support.own_repository import OwnRepository, module
from support.played_daemon import Played
from support.waiting import until


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository with enough code and history to be asked about."""
    repository = OwnRepository(tmp_path / "shop")
    for number in range(20):
        text = module(number) + "".join(f"row_{number}_{n} = {n}\n" for n in range(100))
        repository.commit({f"shop/part{number}.py": text}, when=1_700_000_000 + number)
    return repository.root.resolve()


async def asked(one: Editor) -> types.ShowMessageRequestParams:
    """The first question."""
    return (await until(lambda: one.questions, "a question"))[0]


def choice(played: Played, shop: Path) -> LearningChoice:
    return LearningStore(played.paths).get(str(shop)).choice


@pytest.mark.parametrize(
    ("button", "wanted"),
    [
        ("Yes", LearningChoice.ON),
        ("Never", LearningChoice.OFF),
        ("Not now", LearningChoice.LATER),
        (None, LearningChoice.LATER),
    ],
)
async def test_the_user_is_asked_once_and_the_answer_is_kept(
    played: Played, shop: Path, button: str | None, wanted: LearningChoice
) -> None:
    folders = [uri_of(shop)]
    async with editor(played.environ, folders=folders) as one:
        one.answer = button
        question = await asked(one)
        assert str(shop) in question.message and "Nothing leaves the machine" in question.message
        assert [each.title for each in question.actions or ()] == ["Yes", "Not now", "Never"]
        await until(lambda: choice(played, shop) is wanted, "the answer, in the daemon's files")
    async with editor(played.environ, folders=folders) as another:
        await another.ready()
        assert (await another.command("peft-daemon.status"))["learning"] == ""
        assert another.questions == []


async def test_two_editors_at_once_ask_one_question(played: Played, shop: Path) -> None:
    folders = [uri_of(shop)]
    async with editor(played.environ, folders=folders) as one, editor(played.environ, folders=folders) as other:
        await asyncio.wait(
            [asyncio.create_task(asked(each)) for each in (one, other)], return_when=asyncio.FIRST_COMPLETED
        )
        for each in (one, other):
            # The other one has looked, too, when it has answered this.
            await each.ready()
            await each.command("peft-daemon.status")
        assert len(one.questions) + len(other.questions) == 1


async def test_an_editor_without_questions_and_a_folder_without_a_repository_ask_nothing(
    played: Played, shop: Path, tmp_path: Path
) -> None:
    silent = types.ClientCapabilities(text_document=MODERN.text_document, workspace=MODERN.workspace)
    async with (
        editor(played.environ, folders=[uri_of(shop)], capabilities=silent) as one,
        editor(played.environ, folders=[uri_of(tmp_path)]) as other,
    ):
        for each in (one, other):
            await each.ready()
            await each.command("peft-daemon.status")
        assert one.questions == other.questions == []
    assert choice(played, shop) is LearningChoice.UNASKED


async def test_a_daemon_that_has_left_is_not_started_to_be_asked(played: Played, shop: Path) -> None:
    from peft_daemon.lifecycle.runtime_info import find_running_daemon
    from peft_daemon.lifecycle.stop import stop_daemon
    from peft_lsp.daemon_connection import DaemonConnection, StatusBoard

    with pytest.MonkeyPatch.context() as patch:
        for name, value in played.environ.items():
            patch.setenv(name, value)
        daemon = DaemonConnection(StatusBoard(lambda _status: None))
        await daemon.client()
        told = await daemon.learning(str(shop))
        assert told is not None and told.here is not None and told.here.ask
        await stop_daemon(played.paths)
        assert await daemon.learning(str(shop)) is None
        assert find_running_daemon(played.paths) is None
        await daemon.close()
