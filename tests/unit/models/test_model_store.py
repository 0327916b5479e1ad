"""What the store promises about files that are on the disk already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.errors import Conflict, DownloadFailed, InvalidInput, NotFound
from peft_core.files import format_bytes
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.models.catalogue import FileLocation, ModelEntry
from peft_daemon.models.store import ModelStore, open_store
from support.tiny_entry import tiny_entry


def _flip_a_byte(path: Path, *, keep_time: bool) -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    times = (before.st_atime_ns, before.st_mtime_ns) if keep_time else (before.st_atime_ns, before.st_mtime_ns + 10**9)
    os.utime(path, ns=times)


def test_a_pulled_local_file_is_installed_and_the_original_stays(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    model = store.pull(entry, local=payload_file)
    assert model.path == store.path(entry) == store.folder / "tiny" / "tiny.gguf"
    assert model.path.read_bytes() == payload_file.read_bytes()
    assert store.find(entry) == model
    assert model.source == str(payload_file)
    assert sorted(path.name for path in store.folder.rglob("*") if path.is_file()) == [
        "tiny.gguf",
        "tiny.lock",
        "verified.json",
    ]


def test_an_absent_model_is_not_found_and_names_the_pull(store: ModelStore, entry: ModelEntry) -> None:
    assert store.find(entry) is None
    assert not store.is_installed(entry)
    for call in (store.path, store.verify):
        with pytest.raises(NotFound) as caught:
            call(entry)
        assert "peft-daemon models pull tiny" in caught.value.fix


def test_asking_for_a_model_creates_no_folder(store: ModelStore, entry: ModelEntry) -> None:
    store.is_installed(entry)
    store.find(entry)
    store.staged_bytes(entry)
    assert not store.folder.exists()


def test_a_file_that_changed_since_it_was_verified_is_not_handed_out(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    _flip_a_byte(store.pull(entry, local=payload_file).path, keep_time=False)
    assert store.find(entry) is None
    with pytest.raises(Conflict) as caught:
        store.path(entry)
    assert "peft-daemon models pull tiny" in caught.value.fix


def test_pull_replaces_a_changed_file(store: ModelStore, entry: ModelEntry, payload_file: Path) -> None:
    _flip_a_byte(store.pull(entry, local=payload_file).path, keep_time=False)
    store.pull(entry, local=payload_file)
    assert store.path(entry).read_bytes() == payload_file.read_bytes()


def test_pull_only_checks_a_file_whose_time_changed_but_not_its_bytes(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    file = store.pull(entry, local=payload_file).path
    os.utime(file)
    payload_file.unlink()
    assert store.pull(entry).path == store.path(entry) == file


def test_pull_adopts_a_right_file_put_there_by_hand(store: ModelStore, entry: ModelEntry, payload_file: Path) -> None:
    (store.folder / "tiny").mkdir(parents=True)
    payload_file.rename(store.folder / "tiny" / "tiny.gguf")
    with pytest.raises(Conflict):
        store.path(entry)
    store.pull(entry)
    assert store.path(entry).is_file()


def test_damage_that_left_size_and_time_alone_is_found_by_verify_and_then_pulled_anew(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    file = store.pull(entry, local=payload_file).path
    _flip_a_byte(file, keep_time=True)
    assert store.is_installed(entry)
    with pytest.raises(Conflict) as caught:
        store.verify(entry)
    assert "peft-daemon models pull tiny" in caught.value.fix
    assert not store.is_installed(entry)
    store.pull(entry, local=payload_file)
    assert file.read_bytes() == payload_file.read_bytes()


def test_a_damaged_file_stays_until_another_one_is_here(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    file = store.pull(entry, local=payload_file).path
    _flip_a_byte(file, keep_time=False)
    damaged = file.read_bytes()
    with pytest.raises(DownloadFailed):
        store.pull(entry)  # offline
    assert file.read_bytes() == damaged
    assert not store.is_installed(entry)
    store.pull(entry, local=payload_file)
    assert file.read_bytes() == payload_file.read_bytes()


def test_a_damaged_file_goes_first_where_there_is_no_room_for_both(
    tmp_path: Path, entry: ModelEntry, payload_file: Path
) -> None:
    folder = tmp_path / "models"

    def free_bytes(_: Path) -> int:
        return 100_000 if (folder / "tiny" / "tiny.gguf").exists() else 500_000

    store = ModelStore(folder, offline=True, free_bytes=free_bytes)
    _flip_a_byte(store.pull(entry, local=payload_file).path, keep_time=False)
    assert store.pull(entry, local=payload_file).path.read_bytes() == payload_file.read_bytes()


def test_verify_keeps_the_source_and_accepts_a_right_file(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    model = store.pull(entry, local=payload_file)
    assert store.verify(entry).source == model.source


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"file": "../../other", "sha256": "00"}'])
def test_an_unreadable_record_counts_as_none(
    store: ModelStore, entry: ModelEntry, payload_file: Path, record: bytes
) -> None:
    file = store.pull(entry, local=payload_file).path
    (file.parent / "verified.json").write_bytes(record)
    assert store.find(entry) is None
    with pytest.raises(Conflict):
        store.path(entry)


@pytest.mark.parametrize("change", ["other bytes", "shorter", "folder", "missing"])
def test_a_wrong_local_file_is_refused_and_leaves_nothing(
    store: ModelStore, entry: ModelEntry, payload_file: Path, change: str
) -> None:
    if change == "other bytes":
        _flip_a_byte(payload_file, keep_time=False)
    elif change == "shorter":
        payload_file.write_bytes(payload_file.read_bytes()[:-1])
    else:
        payload_file.unlink()
        if change == "folder":
            payload_file.mkdir()
    with pytest.raises(DownloadFailed) as caught:
        store.pull(entry, local=payload_file)
    assert str(payload_file) in caught.value.why
    assert "peft-daemon models pull tiny --from FILE" in caught.value.fix
    assert "\n" not in caught.value.line
    assert store.staged_bytes(entry) == 0
    assert store.find(entry) is None


def test_offline_without_a_local_file_says_how_to_go_on(store: ModelStore, entry: ModelEntry) -> None:
    with pytest.raises(DownloadFailed) as caught:
        store.pull(entry)
    assert "--from FILE" in caught.value.fix
    assert "PEFT_DAEMON_OFFLINE=0" in caught.value.fix


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, entry: ModelEntry, payload_file: Path
) -> None:
    store = ModelStore(tmp_path / "models", offline=True, free_bytes=lambda folder: entry.bytes - 1)
    with pytest.raises(DownloadFailed) as caught:
        store.pull(entry, local=payload_file)
    assert str(entry.bytes) in caught.value.why
    assert str(entry.bytes - 1) in caught.value.why
    assert "PEFT_DAEMON_MODELS_DIR=" in caught.value.fix
    assert store.staged_bytes(entry) == 0


def test_just_enough_room_is_enough(tmp_path: Path, entry: ModelEntry, payload_file: Path) -> None:
    store = ModelStore(tmp_path / "models", offline=True, free_bytes=lambda folder: entry.bytes)
    assert store.pull(entry, local=payload_file).bytes == entry.bytes


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path, entry: ModelEntry, payload_file: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    store = ModelStore(tmp_path / "occupied" / "models", offline=True)
    with pytest.raises(Conflict) as caught:
        store.pull(entry, local=payload_file)
    assert "PEFT_DAEMON_MODELS_DIR" in caught.value.fix


def test_remove_deletes_the_model_and_tells_what_it_freed(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    file = store.pull(entry, local=payload_file).path
    assert store.remove(entry) >= entry.bytes
    assert not file.parent.exists()
    assert store.find(entry) is None
    with pytest.raises(NotFound):
        store.remove(entry)


def test_remove_deletes_an_unfinished_pull(store: ModelStore, entry: ModelEntry) -> None:
    staging = store.folder / ".staging" / "tiny"
    staging.mkdir(parents=True)
    (staging / f"{entry.sha256[:16]}.partial").write_bytes(b"x" * 50)
    assert store.staged_bytes(entry) == 50
    assert store.remove(entry) == 50
    assert store.staged_bytes(entry) == 0


def test_an_installed_model_whose_catalogue_entry_changed_is_not_handed_out(
    store: ModelStore, entry: ModelEntry, payload_file: Path
) -> None:
    store.pull(entry, local=payload_file)
    payload_file.write_bytes(payload_file.read_bytes()[::-1])
    import hashlib

    import msgspec

    newer = msgspec.structs.replace(entry, sha256=hashlib.sha256(payload_file.read_bytes()).hexdigest())
    assert not store.is_installed(newer)
    store.pull(newer, local=payload_file)
    assert store.path(newer).read_bytes() == payload_file.read_bytes()


def test_a_hub_address_that_is_none_is_bad_input(tmp_path: Path, entry: ModelEntry) -> None:
    store = ModelStore(tmp_path / "models", offline=False, environ={"HF_ENDPOINT": "file:///etc"})
    with pytest.raises(InvalidInput, match="HF_ENDPOINT"):
        store.pull(entry)


def test_the_folder_comes_from_the_settings_or_the_cache(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    assert open_store(Settings(), paths).folder == paths.models
    chosen = open_store(Settings(models_dir=str(tmp_path / "m"), offline=True), paths)
    assert (chosen.folder, chosen.offline) == (tmp_path / "m", True)


def test_finding_a_model_imports_no_network_lock_or_terminal_code() -> None:
    heavy = ["httpx", "filelock", "rich", "typer", "asyncio", "ssl", "numpy", "torch"]
    script = (
        "import sys; from pathlib import Path; from peft_daemon.models import catalogue, store\n"
        "store.ModelStore(Path('nowhere'), offline=True).is_installed(catalogue.entries()[0])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (491_400_064, "491.4 MB"), (1_117_320_768, "1.1 GB")],
)
def test_sizes_are_decimal(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.fixture
def in_place(payload_file: Path) -> ModelEntry:
    return tiny_entry(payload_file.read_bytes(), FileLocation(str(payload_file)))


def test_a_file_that_is_used_where_it_lies_is_checked_and_not_copied(
    store: ModelStore, in_place: ModelEntry, payload_file: Path
) -> None:
    with pytest.raises(Conflict, match="is not verified"):
        store.path(in_place)
    assert store.pull(in_place).path == store.path(in_place) == payload_file
    assert sorted(path.name for path in store.folder.rglob("*") if path.is_file()) == ["tiny.lock", "verified.json"]


def test_removing_it_leaves_the_file(store: ModelStore, in_place: ModelEntry, payload_file: Path) -> None:
    store.pull(in_place)
    beside = payload_file.with_name("beside.txt")
    beside.write_text("mine")
    store.remove(in_place)
    assert payload_file.is_file()
    assert beside.is_file()
    assert store.find(in_place) is None


def test_one_that_is_gone_or_was_replaced_is_named_with_the_way_out(
    store: ModelStore, in_place: ModelEntry, payload_file: Path
) -> None:
    store.pull(in_place)
    _flip_a_byte(payload_file, keep_time=False)
    with pytest.raises(Conflict, match="is damaged") as damaged:
        store.pull(in_place)
    assert "peft-daemon models remove tiny" in damaged.value.fix
    payload_file.unlink()
    for call in (store.path, store.pull, store.verify):
        with pytest.raises(NotFound, match="is gone") as gone:
            call(in_place)
        assert "peft-daemon models remove tiny" in gone.value.fix
