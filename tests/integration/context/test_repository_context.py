"""Chunks of a workspace, with the real process that indexes it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import psutil
import pytest

from peft_core.api_types import CompleteRequest, ContextChanged, ContextChunk, EditedRegion
from peft_core.errors import InvalidInput
from peft_core.status_types import IndexState
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.client import DaemonClient
from peft_daemon.context import index_client
from peft_daemon.context.repository import RepositoryContext
from support.own_repository import OwnRepository
from support.played_daemon import Played, played_home
from support.waiting import until, until_answer

WHOLE = (sys.maxsize, sys.maxsize)
"""The prompt shows all of the document."""
SHIP = (
    "def ship_parcel(parcel, carrier, address):\n    label = carrier.print_label(parcel, address)\n"
    "    carrier.hand_over(parcel, label)\n    return label\n"
)
ORDERS = "def load_orders(path: str) -> list:\n    return [path]\n"
TYPED = "from orders import load_orders\n\n\ndef send(parcel, carrier, address):\n    carrier.print_label(parcel, "


@pytest.fixture
async def context() -> AsyncIterator[RepositoryContext]:
    created = RepositoryContext(lambda _path: 300)
    yield created
    await created.stop()


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    own = OwnRepository(tmp_path / "own")
    own.commit({"ship.py": SHIP, "orders.py": ORDERS, "app.py": "x = 1\n"})
    return own


def request(own: OwnRepository, text: str = TYPED, file: str = "app.py", **more: object) -> CompleteRequest:
    asked = CompleteRequest(
        prefix=text, path=str(own.root / file), workspace=str(own.root), document=f"editor:{file}", suffix="\n"
    )
    return msgspec.structs.replace(asked, **more)


def by_path(chunks: Iterable[ContextChunk]) -> dict[str, str]:
    """The first chunk of each file."""
    found: dict[str, str] = {}
    for each in chunks:
        found.setdefault(each.path, each.text)
    return found


async def adopted(context: RepositoryContext, asked: CompleteRequest, *paths: str) -> dict[str, str]:
    """The chunks of a document that is opened when the index has what it takes: all these files are among them."""

    async def shown(document: str) -> dict[str, str]:
        return by_path(await context.chunks(msgspec.structs.replace(asked, document=document), WHOLE, adopt=True))

    def all_there(found: dict[str, str]) -> bool:
        return set(paths) <= set(found)

    await until_answer(lambda: shown(uuid.uuid4().hex), all_there, "chunks for a new document")
    return await until_answer(lambda: shown(asked.document or ""), all_there, "chunks for the document")


async def ready(context: RepositoryContext) -> None:
    await until(lambda: any(each.state is IndexState.READY for each in context.status().workspaces), "an index")


async def test_a_document_is_shown_what_its_workspace_has_for_it(
    context: RepositoryContext, own: OwnRepository
) -> None:
    found = await adopted(context, request(own), "ship.py", "orders.py")
    assert found["orders.py"] == "def load_orders(path: str) -> list: ..."
    assert found["ship.py"] == SHIP.rstrip()
    status = context.status()
    assert [(each.files, each.of, each.state) for each in status.workspaces] == [(3, 3, IndexState.READY)]
    assert status.memory_bytes > 0
    assert status.pid is not None
    if hasattr(os, "nice"):
        assert psutil.Process(status.pid).nice() > psutil.Process().nice()


async def test_while_somebody_types_the_chunks_stay_and_come_at_once(
    context: RepositoryContext, own: OwnRepository
) -> None:
    first = await adopted(context, request(own), "ship.py", "orders.py")
    own.write("other.py", "def weigh_basket(basket, scale):\n    return scale.read(basket)\n")
    elsewhere = request(own, "def weigh(basket, scale):\n    return weigh_basket(basket, scale")
    pid = context.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            assert by_path(await context.chunks(elsewhere, WHOLE, adopt=False)) == first
        # A warm-up waits a moment for a process that does not answer, and shows what was shown.
        assert by_path(await context.chunks(elsewhere, WHOLE, adopt=True)) == first
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_the_first_request_of_a_document_waits_for_nothing_and_has_its_own_chunks(
    context: RepositoryContext, own: OwnRepository
) -> None:
    given = ContextChunk("given.py", "x = 1")
    assert await context.chunks(request(own, context=[given]), WHOLE, adopt=False) == (given,)
    assert context.status().pid is None
    found = await adopted(context, request(own, context=[given]), "given.py", "ship.py", "orders.py")
    assert next(iter(found)) == "given.py"


async def test_a_saved_file_and_a_new_one_are_read_anew(context: RepositoryContext, own: OwnRepository) -> None:
    await adopted(context, request(own), "ship.py", "orders.py")
    own.write("orders.py", "def load_orders(path: str, day: int) -> set:\n    return {path}\n")
    own.write("fresh.py", "def brand_new_helper(one, two):\n    return one\n")
    saved = [str(own.root / "orders.py"), str(own.root / "fresh.py")]
    assert await context.changed(ContextChanged(workspace=str(own.root), saved=saved))
    asked = request(own, TYPED + "\nbrand_new_helper(", document="another")
    found = await adopted(context, asked, "fresh.py")
    assert found["fresh.py"] == "def brand_new_helper(one, two): ..."
    assert found["orders.py"] == "def load_orders(path: str, day: int) -> set: ..."


async def test_fresh_edits_of_other_files_are_shown_but_not_those_of_the_file_itself(
    context: RepositoryContext, own: OwnRepository
) -> None:
    edits = [
        EditedRegion(str(own.root / "app.py"), "in_the_file_itself = here_where_the_cursor_stands\n" * 2),
        EditedRegion(str(own.root / "draft.py"), "fresh = edited_a_moment_ago_and_not_saved_yet(1)\n" * 2),
        EditedRegion(str(own.root / "secrets.py"), "held = in_a_file_that_is_never_shown_to_anybody(1)\n" * 2),
        EditedRegion("/etc/passwd.py", "outside = not_of_the_workspace_at_all_so_never_shown(1)\n" * 2),
    ]
    assert await context.changed(ContextChanged(workspace=str(own.root), edits=edits))
    found = await adopted(context, request(own), "draft.py")
    assert not {"app.py", "secrets.py", "/etc/passwd.py", "../etc/passwd.py"} & set(found)


async def test_a_process_that_dies_is_replaced_and_what_is_shown_stays(
    context: RepositoryContext, own: OwnRepository
) -> None:
    first = await adopted(context, request(own), "ship.py", "orders.py")
    before = context.status().pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until(lambda: context.status().pid != before, "the end of the process")
    assert by_path(await context.chunks(request(own), WHOLE, adopt=True)) == first
    await adopted(context, request(own, document="another"), "ship.py", "orders.py")
    assert context.status().restarts == 1


async def test_a_process_that_keeps_dying_is_left_alone(
    context: RepositoryContext, own: OwnRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peft_daemon.context.index_client.MODULE", "peft_daemon.no_such_module")
    for _ in range(8):
        assert await context.chunks(request(own), WHOLE, adopt=True) == ()
        await until(lambda: context.status().pid is None, "the end of the process")
    assert context.status().restarts == 3


async def test_stopping_ends_the_process(own: OwnRepository) -> None:
    context = RepositoryContext(lambda _path: 300)
    await adopted(context, request(own), "ship.py", "orders.py")
    pid = context.status().pid
    assert pid is not None
    await context.stop()
    assert not psutil.pid_exists(pid)
    assert await context.chunks(request(own, document="another"), WHOLE, adopt=True) == ()


@pytest.mark.parametrize("workspace", ["relative", "/", "/no/such/folder", "", None, "bad\0name"])
async def test_only_a_folder_of_ones_own_is_read(
    context: RepositoryContext, own: OwnRepository, workspace: str | None
) -> None:
    assert await context.chunks(request(own, workspace=workspace), WHOLE, adopt=True) == ()
    assert context.status().pid is None


async def test_a_link_out_of_the_workspace_is_not_followed(
    context: RepositoryContext, own: OwnRepository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("def brand_new_helper(one, two):\n    return one\n")
    (own.root / "linked.py").symlink_to(outside)
    await adopted(context, request(own, TYPED + "\nbrand_new_helper("), "ship.py")
    await ready(context)
    found = await context.chunks(request(own, "brand_new_helper(", document="another"), WHOLE, adopt=True)
    assert "linked.py" not in {each.path for each in found}


async def test_a_folder_that_git_refuses_is_told_as_failed_and_others_go_on(
    context: RepositoryContext, own: OwnRepository, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / ".git").write_text("gitdir: /nowhere\n")
    asked = request(own, workspace=str(broken), document="broken")
    while not context.status().workspaces or context.status().workspaces[0].state is not IndexState.FAILED:
        assert await context.chunks(asked, WHOLE, adopt=True) == ()
    assert context.status().workspaces[0].why
    await adopted(context, request(own), "ship.py", "orders.py")


async def test_nothing_is_read_where_no_tokens_are_given(own: OwnRepository) -> None:
    context = RepositoryContext(lambda _path: 0)
    assert await context.chunks(request(own), WHOLE, adopt=True) == ()
    assert not await context.changed(ContextChanged(workspace=str(own.root), saved=[str(own.root / "app.py")]))
    assert context.status().pid is None


async def test_the_route_takes_what_an_editor_tells(own: OwnRepository) -> None:
    told = ContextChanged(workspace=str(own.root), saved=[str(own.root / "app.py")])
    async with played_home(PEFT_DAEMON_REPOSITORY_CONTEXT="300") as home, await client_of(home) as client:
        assert await client.context_changed(told)
        assert (await client.status()).context.tokens == 300
        assert not await client.context_changed(msgspec.structs.replace(told, workspace="relative"))
        with pytest.raises(InvalidInput):
            await client.context_changed(msgspec.structs.replace(told, saved=["x"] * 1000))


async def test_the_route_says_where_the_setting_is_off(own: OwnRepository) -> None:
    async with played_home(PEFT_DAEMON_REPOSITORY_CONTEXT="0") as home, await client_of(home) as client:
        assert not await client.context_changed(ContextChanged(workspace=str(own.root)))


async def test_the_route_follows_what_was_found_for_the_repository(own: OwnRepository, tmp_path: Path) -> None:
    async with played_home() as home, await client_of(home) as client:
        told = ContextChanged(workspace=str(own.root), saved=[str(own.root / "app.py")])
        assert not await client.context_changed(told)
        AdapterRegistry(home.paths.adapters).show_context(300, own.root)
        assert await client.context_changed(told)
        assert not await client.context_changed(ContextChanged(workspace=str(tmp_path)))
        await client.warm(request(own, path=str(own.root / "app.py")))
        assert (await client.status()).context.tokens == 300, "its files are read for completions"


async def client_of(played: Played) -> DaemonClient:
    return await DaemonClient.connect(paths=played.paths, start=False)


async def test_an_index_that_hangs_is_ended_and_built_again(
    context: RepositoryContext, own: OwnRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_client, "HANG_CHECK_S", 0.05)
    await adopted(context, request(own), "ship.py")
    hung = context.status().pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    await adopted(context, msgspec.structs.replace(request(own), document="another"), "ship.py")
    assert context.status().pid != hung
    assert not psutil.pid_exists(hung)


async def test_an_index_that_cannot_be_started_leaves_completions_without_it(
    context: RepositoryContext, own: OwnRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_process(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(index_client, "RETRY_S", 0.0)
    with monkeypatch.context() as lacking:
        lacking.setattr(index_client.ChildProcess, "spawn", no_process)
        for _ in range(index_client.MAX_CRASHES + 1):
            assert await context.chunks(request(own), WHOLE, adopt=True) == ()
    assert await adopted(context, request(own), "ship.py")


@pytest.mark.parametrize("answers", [True, False], ids=["in order", "though the index hangs"])
async def test_git_that_waits_for_a_pipe_ends_with_the_index(
    context: RepositoryContext, own: OwnRepository, answers: bool
) -> None:
    os.mkfifo(own.root / ".gitignore")
    asked = asyncio.create_task(context.chunks(request(own), WHOLE, adopt=True))
    index = await until(lambda: psutil.pid_exists(context.status().pid or 0) and context.status().pid, "an index")
    git = await until(lambda: next(iter(psutil.Process(index).children()), None), "git that reads the rules")
    if not answers:
        os.kill(index, signal.SIGSTOP)
    await context.stop()
    await until(lambda: not git.is_running() or git.status() == psutil.STATUS_ZOMBIE, "the end of git")
    asked.cancel()
