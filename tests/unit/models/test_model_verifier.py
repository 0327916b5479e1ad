"""Before each load and while it serves: only the file that was verified is handed to an engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from peft_core.errors import UnusableFile
from peft_core.files import FileStamp, file_sha256, sample_sha256
from peft_core.settings import Settings
from peft_daemon.models import verifier
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.content import VERIFIED_RECORD_FILE
from peft_daemon.models.optimized import CopyFigures, ModelFile, publish_optimized
from peft_daemon.models.store import ModelStore
from peft_daemon.models.verifier import ModelVerifier

FIGURES = CopyFigures(
    reading=1.5, writing=1.25, loss=0.01, loss_bound=0.02, places=9, lines=8, right=3, right_original=4, same=7
)


@pytest.fixture
def file(store: ModelStore, entry: ModelEntry, payload_file: Path) -> Path:
    """The installed model's."""
    return store.pull(entry, local=payload_file).path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were hashed as a whole before a load or while one serves."""
    paths: list[Path] = []
    real = ModelVerifier._sha256

    def spy(self: ModelVerifier, path: Path, *, pause_when_busy: bool = False) -> str:
        paths.append(path)
        return real(self, path, pause_when_busy=pause_when_busy)

    monkeypatch.setattr(ModelVerifier, "_sha256", spy)
    return paths


@pytest.fixture
def opened(store: ModelStore, entry: ModelEntry) -> Callable[[], ModelVerifier]:
    """What another daemon would have, each time."""
    return lambda: ModelVerifier(store, entry, uses_copy=False)


def flipped(file: Path, at: int = 1000) -> bytes:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    return bytes(data)


def replace(file: Path, data: bytes) -> None:
    """Put another file in its place, of the same size and time."""
    info = file.stat()
    fresh = file.with_suffix(".fresh")
    fresh.write_bytes(data)
    os.utime(fresh, ns=(info.st_atime_ns, info.st_mtime_ns))
    fresh.replace(file)


def rot(file: Path, *, seen_by_sample: bool) -> None:
    """Flip a bit as a bad disk does: the system knows of no change."""
    replace(file, flipped(file))
    record = msgspec.json.decode((file.parent / VERIFIED_RECORD_FILE).read_bytes())
    record["stamp"] = msgspec.to_builtins(FileStamp.of(file))
    if not seen_by_sample:
        record["sample"] = sample_sha256(file)
    (file.parent / VERIFIED_RECORD_FILE).write_bytes(msgspec.json.encode(record))


def test_an_unchanged_file_is_loaded_without_hashing_all_of_it(
    opened: Callable[[], ModelVerifier], file: Path, hashed: list[Path]
) -> None:
    assert opened().file_to_load() == file
    assert hashed == []


def test_a_file_of_which_only_the_time_changed_is_hashed_once_for_all_daemons(
    opened: Callable[[], ModelVerifier], file: Path, hashed: list[Path]
) -> None:
    os.utime(file, ns=(1, 1))
    one = opened()
    assert [one.file_to_load(), one.file_to_load(), opened().file_to_load()] == [file] * 3
    assert hashed == [file]


def test_a_file_system_that_has_another_number_after_a_start_has_no_file_hashed(
    opened: Callable[[], ModelVerifier], file: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def renumbered(path: Path, **options: bool) -> os.stat_result:
        info = stat(path, **options)
        facts = {name: getattr(info, name) for name in dir(info) if name.startswith("st_")}
        return os.stat_result((*info[:2], info.st_dev + 1, *info[3:]), facts)

    monkeypatch.setattr(Path, "stat", renumbered)
    assert file.stat().st_dev == stat(file).st_dev + 1
    assert opened().file_to_load() == file
    assert hashed == []


def test_a_record_of_an_earlier_version_has_the_file_hashed_once(
    opened: Callable[[], ModelVerifier], file: Path, hashed: list[Path]
) -> None:
    record = msgspec.json.decode((file.parent / VERIFIED_RECORD_FILE).read_bytes())
    del record["stamp"], record["sample"]
    (file.parent / VERIFIED_RECORD_FILE).write_bytes(msgspec.json.encode(record))
    assert [opened().file_to_load(), opened().file_to_load()] == [file] * 2
    assert hashed == [file]


def test_another_file_of_equal_size_and_time_is_not_loaded_until_the_right_one_is_back(
    opened: Callable[[], ModelVerifier], file: Path, hashed: list[Path]
) -> None:
    right = file.read_bytes()
    one = opened()
    one.file_to_load()
    replace(file, flipped(file))
    for _ in range(2):
        with pytest.raises(UnusableFile, match="is damaged") as caught:
            one.file_to_load()
        assert "peft-daemon models pull tiny" in caught.value.fix
    assert hashed == [file], "what is known to be wrong is not hashed again"
    replace(file, right)
    assert one.file_to_load() == file


def test_a_cut_or_missing_file_is_not_loaded(opened: Callable[[], ModelVerifier], file: Path) -> None:
    one = opened()
    one.file_to_load()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UnusableFile, match="is damaged"):
        one.file_to_load()
    file.unlink()
    with pytest.raises(UnusableFile, match="not installed"):
        one.file_to_load()


def test_a_file_that_is_replaced_while_it_is_hashed_is_hashed_again(
    opened: Callable[[], ModelVerifier], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, record = file.read_bytes(), (file.parent / VERIFIED_RECORD_FILE).read_bytes()
    replace(file, flipped(file))
    real = ModelVerifier._sha256

    def pulled_meanwhile(self: ModelVerifier, path: Path, *, pause_when_busy: bool = False) -> str:
        digest = real(self, path, pause_when_busy=pause_when_busy)
        if file.read_bytes() != right:
            replace(file, right)
            (file.parent / VERIFIED_RECORD_FILE).write_bytes(record)
        return digest

    monkeypatch.setattr(ModelVerifier, "_sha256", pulled_meanwhile)
    assert opened().file_to_load() == file


def test_rot_that_the_system_does_not_know_of_is_seen_by_the_sample(
    opened: Callable[[], ModelVerifier], file: Path
) -> None:
    rot(file, seen_by_sample=True)
    with pytest.raises(UnusableFile, match="is damaged"):
        opened().file_to_load()


def test_a_folder_that_cannot_be_written_does_not_keep_a_right_file_from_serving(
    opened: Callable[[], ModelVerifier], file: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    os.utime(file, ns=(1, 1))
    monkeypatch.setattr(Path, "replace", refuse)
    one = opened()
    assert [one.file_to_load(), one.file_to_load()] == [file] * 2
    assert hashed == [file]


@pytest.fixture
def copy(entry: ModelEntry, file: Path) -> Path:
    """An optimized copy of the installed model."""
    made = file.with_name("made")
    made.write_bytes(b"faster" * 100)
    record = publish_optimized(
        file.parent,
        ModelFile(made, file_sha256(made), "faster"),
        name="tiny",
        source_sha256=entry.sha256,
        adapter="",
        figures=FIGURES,
        versions={},
        processor="one",
    )
    return file.parent / record.file


def test_a_damaged_copy_gives_way_to_the_original_at_once_and_for_good(
    store: ModelStore, entry: ModelEntry, file: Path, copy: Path
) -> None:
    one = ModelVerifier(store, entry, uses_copy=True)
    assert one.file_to_load() == copy
    replace(copy, flipped(copy, 7))
    assert one.file_to_load() == file
    assert store.file_to_serve(entry, Settings()).path == file


def test_a_copy_that_is_made_while_a_daemon_runs_waits_for_the_next_one(
    opened: Callable[[], ModelVerifier], store: ModelStore, entry: ModelEntry, file: Path, copy: Path
) -> None:
    assert opened().file_to_load() == file
    assert store.file_to_serve(entry, Settings()).path == copy


async def damage_found(one: ModelVerifier) -> UnusableFile:
    """What watching the file that was loaded finds."""
    found: asyncio.Future[UnusableFile] = asyncio.get_running_loop().create_future()

    async def on_damage(error: UnusableFile) -> None:
        found.set_result(error)

    watching = asyncio.create_task(one.watch(on_damage))
    try:
        return await asyncio.wait_for(found, 20)
    finally:
        watching.cancel()
        one.close()


async def test_what_happens_to_the_file_while_it_serves_is_noticed(
    opened: Callable[[], ModelVerifier], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "STAMP_CHECK_INTERVAL_S", 0.01)
    one = opened()
    one.file_to_load()
    with file.open("r+b") as open_file:
        open_file.seek(5000)
        open_file.write(b"\0" * 64)
    assert "is damaged" in (await damage_found(one)).what


async def test_an_answer_that_looks_damaged_has_the_file_hashed(
    opened: Callable[[], ModelVerifier], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rot(file, seen_by_sample=False)
    one = opened()
    assert one.file_to_load() == file
    one.suspect("it wrote bytes that are no text")
    assert "is damaged" in (await damage_found(one)).what


async def test_once_a_day_the_whole_file_is_hashed_while_nobody_waits(
    store: ModelStore, entry: ModelEntry, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "STAMP_CHECK_INTERVAL_S", 0.01)
    monkeypatch.setattr(verifier, "MIN_LOADED_S", 0.0)
    rot(file, seen_by_sample=False)
    record = msgspec.json.decode((file.parent / VERIFIED_RECORD_FILE).read_bytes())
    record["verified"] = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    (file.parent / VERIFIED_RECORD_FILE).write_bytes(msgspec.json.encode(record))
    asked = iter([True, False, True, True])  # a request at the first look, and one while it is hashed
    one = ModelVerifier(store, entry, uses_copy=False, busy=lambda: next(asked, False))
    one.file_to_load()
    assert "is damaged" in (await damage_found(one)).what
    assert next(asked, None) is None
