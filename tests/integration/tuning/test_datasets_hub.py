"""Fetching from a hub: once, resumed, checked, all or nothing. A server of our own plays the hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from peft_core.errors import DownloadFailed, NotFound
from peft_tuning.data.datasets import catalogue, conala
from peft_tuning.data.datasets.sources import (
    DataLocations,
    DataSetFile,
    DataSetFiles,
    HubFile,
    HubRepository,
    LocatedFiles,
    find,
)
from support.waiting import wait_until

COMMIT = "c0ffee" * 6 + "c0ff"
CONTENT = json.dumps([{"x": n} for n in range(40_000)]).encode()
PATH = f"/datasets/some/data/resolve/{COMMIT}/rows.json"


@dataclass
class Hub:
    """What it serves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0
    """Next answers that end halfway."""
    stalled: bool = False
    """Stop halfway and keep the connection open."""
    status: int = 200
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    served = Hub(files={PATH: CONTENT})
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            range_ = self.headers.get("Range", "")
            served.asked.append((self.path, range_))
            content = served.files.get(self.path)
            if content is None or served.status != 200:
                self.send_error(404 if content is None else served.status)
                return
            match = re.match(r"bytes=(\d+)-", range_)
            start = int(match[1]) if match else 0
            body = content[start:]
            self.send_response(206 if match else 200)
            if match:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if served.cut or served.stalled:
                served.cut = max(served.cut - 1, 0)
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if served.stalled:
                    over.wait(30)
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def wanted(*, size: int | None = None, sha256: str | None = None) -> DataSetFiles:
    file = HubFile(file="rows.json", bytes=size, sha256=sha256)
    return DataSetFiles(
        id="data",
        parts={"all": DataSetFile(names=("rows.json",), fields=("x",), hub=file)},
        repository=HubRepository(id="some/data", commit=COMMIT),
    )


def get(hub: Hub, folder: Path, what: DataSetFiles | None = None, *, offline: bool = False) -> LocatedFiles:
    return find(what or wanted(), DataLocations(cache=folder / "datasets", endpoint=hub.url, offline=offline))


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "datasets/data").iterdir() if not path.name.startswith("."))


def test_the_second_use_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    first = get(hub, tmp_path, wanted(size=len(CONTENT), sha256=sha256))
    assert first.location == f"hub some/data@{COMMIT[:12]}"
    assert first.files["all"].read_bytes() == CONTENT
    again = get(hub, tmp_path, offline=True)
    assert again.files == first.files
    assert [path for path, _ in hub.asked] == [PATH]
    assert visible(tmp_path) == ["rows.json"]


def test_a_broken_connection_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.cut = 2
    assert get(hub, tmp_path).files["all"].read_bytes() == CONTENT
    half = len(CONTENT) // 2
    more = half + (len(CONTENT) - half) // 2
    assert [range_ for _, range_ in hub.asked] == ["", f"bytes={half}-", f"bytes={more}-"]


def test_two_at_once_fetch_once(hub: Hub, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: get(hub, tmp_path), range(2)))
    assert [f.files["all"].read_bytes() for f in found] == [CONTENT] * 2
    assert len(hub.asked) == 1


def test_many_broken_connections_are_gone_on_with_while_each_brings_something(hub: Hub, tmp_path: Path) -> None:
    hub.cut = 10
    assert get(hub, tmp_path).files["all"].read_bytes() == CONTENT
    assert len(hub.asked) == 11


def test_a_part_of_something_else_is_given_up(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "datasets/data"
    folder.mkdir(parents=True)
    (folder / f".rows.json.{COMMIT[:12]}.part").write_bytes(b"x" * 10)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DownloadFailed, match="another sha256"):
        get(hub, tmp_path, wanted(sha256=sha256))
    assert get(hub, tmp_path, wanted(sha256=sha256)).files["all"].read_bytes() == CONTENT


def test_a_killed_fetch_leaves_nothing_to_be_read_and_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    hub.stalled = True
    code = (
        "import sys; from pathlib import Path; from peft_tuning.data.datasets.sources import *; "
        "from peft_core.http_download import NoProgress; "
        f"fetch(HubRepository(id='some/data', commit='{COMMIT}'), HubFile(file='rows.json'), Path(sys.argv[1]), "
        "endpoint=sys.argv[2], progress=NoProgress())"
    )
    folder = tmp_path / "datasets/data"
    folder.mkdir(parents=True)
    child = subprocess.Popen([sys.executable, "-c", code, folder / "rows.json", hub.url])
    try:
        wait_until(
            lambda: any(path.stat().st_size for path in folder.glob(".*.part")) or child.poll() is not None,
            "a part of the file",
        )
        assert child.poll() is None
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert visible(tmp_path) == []
    hub.stalled = False
    assert get(hub, tmp_path).files["all"].read_bytes() == CONTENT
    assert hub.asked[-1][1].startswith("bytes=")


@pytest.mark.parametrize(
    ("pinned", "message"),
    [({"sha256": "0" * 64}, "another sha256"), ({"size": len(CONTENT) - 1}, "bytes instead of")],
)
def test_other_content_than_the_pinned_is_never_used(
    hub: Hub, tmp_path: Path, pinned: dict[str, object], message: str
) -> None:
    for _ in range(2):
        with pytest.raises(DownloadFailed, match=message):
            get(hub, tmp_path, wanted(**pinned))  # type: ignore[arg-type]
        assert visible(tmp_path) == []


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_refusal_says_which_file_to_put_where(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.status = status
    with pytest.raises(DownloadFailed, match=f"HTTP {status}") as caught:
        get(hub, tmp_path)
    for expected in ("rows.json", "rows with x", str(tmp_path / "datasets/data"), COMMIT, "--data"):
        assert expected in caught.value.fix


def test_no_hub_at_all_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="cannot connect"):
        get(Hub(url="http://127.0.0.1:1"), tmp_path)


def test_offline_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="offline"):
        get(hub, tmp_path, offline=True)
    assert hub.asked == []


def test_a_data_set_is_fetched_whole_and_checked(hub: Hub, tmp_path: Path) -> None:
    repository = conala.FILES.repository
    assert repository is not None
    for split, part in conala.FILES.parts.items():
        assert part.hub is not None
        rows = ({"nl": f"{split} {n}", "cmd": "x", "question_id": f"{n}-1"} for n in range(conala.SIZES[split]))
        path = f"/datasets/{repository.id}/resolve/{repository.commit}/{part.hub.file}"
        hub.files[path] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    places = DataLocations(cache=tmp_path / "datasets", endpoint=hub.url)
    found = catalogue.load("conala", places)
    assert (len(found.train), len(found.validation), len(found.test)) == (2135, 201, 543)
    assert repository.pin in found.provenance
    assert catalogue.load("conala", DataLocations(cache=tmp_path / "datasets", offline=True)).digest == found.digest


def test_a_cache_that_cannot_be_made_is_the_same_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "datasets").write_text("a file is in the way")
    with pytest.raises(DownloadFailed, match="could not be fetched") as caught:
        get(hub, tmp_path)
    assert "--data" in caught.value.fix
