"""A model's file that is replaced, changed or deleted under a running daemon: clear errors, never made-up answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from peft_core.errors import Conflict
from peft_core.status_types import EngineState
from peft_daemon.models import verifier
from support.served_gguf import ServedGguf, served_gguf
from support.synthetic_adapter import TinyModel


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedGguf]:
    monkeypatch.setattr(verifier, "STAMP_CHECK_INTERVAL_S", 0.05)
    async with served_gguf(tmp_path) as one:
        yield one


def other_model(file: Path, *, in_place: bool) -> bytes:
    """Put another model of the same size and time in its place; returns what was there."""
    before, info = file.read_bytes(), file.stat()
    fresh = file.with_suffix(".fresh")
    TinyModel.random(seed=9).write(fresh)
    assert fresh.stat().st_size == info.st_size
    if in_place:
        file.write_bytes(fresh.read_bytes())
        fresh.unlink()
    else:
        fresh.replace(file)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    return before


def refused(response: httpx.Response) -> str:
    """The next step that a refusal names."""
    assert response.status_code == 502, response.text
    error = response.json()["error"]
    assert "tiny.gguf" in error["what"]
    assert error["why"]
    return str(error["fix"])


async def test_promise_23_another_file_of_the_same_name_is_not_loaded(
    served: ServedGguf,
) -> None:
    expected = (await served.raw()).json()["choices"][0]["text"]
    right = other_model(served.file, in_place=False)
    await served.kill_engine()
    failed = await served.until(lambda status: status.engine.state is EngineState.FAILED)
    assert "is damaged" in failed.engine.last_error
    assert "models pull tiny" in failed.engine.fix
    for response in (await served.raw(), await served.complete()):
        assert "models pull tiny" in refused(response)
    served.file.write_bytes(right)
    await served.until(lambda status: status.engine.state is EngineState.READY)
    assert (await served.raw()).json()["choices"][0]["text"] == expected


async def test_promise_23_a_file_that_is_overwritten_while_it_serves_is_given_up(served: ServedGguf) -> None:
    expected = (await served.raw()).json()["choices"][0]["text"]
    right = other_model(served.file, in_place=True)
    await served.until(lambda status: status.engine.state is EngineState.FAILED)
    assert "models pull tiny" in refused(await served.raw())
    served.file.write_bytes(right)
    await served.until(lambda status: status.engine.state is EngineState.READY)
    assert (await served.raw()).json()["choices"][0]["text"] == expected


def cut(file: Path) -> None:
    """Leave the first half, as a copy that was interrupted does."""
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    """Change one bit and leave size and time as they were, as a failing disk does."""
    info = file.stat()
    with file.open("r+b") as opened:
        opened.seek(info.st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(info.st_size // 2)
        opened.write(bytes([byte ^ 0x10]))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize("damage", [cut, flip_a_bit])
async def test_promise_23_a_file_that_is_cut_or_rots_while_it_serves_is_given_up(
    served: ServedGguf, damage: Callable[[Path], None]
) -> None:
    expected = (await served.raw()).json()["choices"][0]["text"]
    right = served.file.read_bytes()
    damage(served.file)
    await served.until(lambda status: status.engine.state is EngineState.FAILED)
    assert "models pull tiny" in refused(await served.raw())
    served.file.write_bytes(right)
    await served.until(lambda status: status.engine.state is EngineState.READY)
    assert (await served.raw()).json()["choices"][0]["text"] == expected


async def test_promise_23_a_deleted_file_is_told_when_it_has_to_be_loaded(served: ServedGguf) -> None:
    served.file.unlink()
    assert (await served.raw()).status_code == 200, "what is loaded serves on"
    await served.kill_engine()
    failed = await served.until(lambda status: status.engine.state is EngineState.FAILED)
    assert "not installed" in failed.engine.last_error
    assert (await served.raw()).status_code == 502


async def test_promise_23_a_copy_of_the_right_file_serves(served: ServedGguf) -> None:
    before = await served.status()
    fresh = served.file.with_suffix(".fresh")
    fresh.write_bytes(served.file.read_bytes())
    fresh.replace(served.file)
    await served.kill_engine()
    after = await served.until(lambda status: status.engine.state is EngineState.READY)
    assert after.engine.restarts == before.engine.restarts + 1
    assert (await served.raw()).status_code == 200


async def test_promise_23_a_file_of_which_only_the_time_changed_is_hashed_and_serves(tmp_path: Path) -> None:
    async with served_gguf(tmp_path, before_start=lambda file: os.utime(file, ns=(1, 1))) as one:
        assert (await one.raw()).status_code == 200


async def test_promise_23_a_daemon_does_not_start_with_another_file(tmp_path: Path) -> None:
    def shorten(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(Conflict, match="is damaged"):
        async with served_gguf(tmp_path, before_start=shorten):
            pass
