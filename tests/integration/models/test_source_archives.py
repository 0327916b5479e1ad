"""Source archives, fetched from a real index over HTTP: continued, trusted by sha256 only, and never run."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
from model_servers import FileServer, Reply

from peft_core.errors import DownloadFailed, InvalidInput, NotFound
from peft_core.http_download import NoProgress
from peft_daemon.engines.builds.source import SourceArchive, fetch

CONTENT = random.Random(5).randbytes(3_000_000)
NAME = "tiny-sources-1.0.tar.gz"
FILE, PAGE = f"/files/ab/{NAME}", "/simple/tiny-sources/"
ARCHIVE = SourceArchive(
    version="7",
    project="tiny-sources",
    file=NAME,
    bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    folder="tiny-sources-1.0",
)


def publish(index: FileServer, content: bytes = CONTENT, link: str = f"../../files/ab/{NAME}#sha256=0") -> None:
    other = '<a href="../../files/tiny-sources-0.9.tar.gz">tiny-sources-0.9.tar.gz</a>'
    index.files[PAGE] = f'<!DOCTYPE html>{other}<a data-x="1" href="{link}">{NAME}</a>'.encode()
    index.files[FILE] = content


def get(folder: Path, *, local: Path | None = None, offline: bool = False) -> Path:
    return fetch(ARCHIVE, folder, local=local, offline=offline, progress=NoProgress())


def test_it_is_fetched_once(index: FileServer, tmp_path: Path) -> None:
    publish(index)
    assert get(tmp_path / "cache").read_bytes() == CONTENT
    assert get(tmp_path / "cache").read_bytes() == CONTENT
    assert len(index.requests(FILE)) == 1
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [NAME]


def test_an_interrupted_download_is_continued(index: FileServer, tmp_path: Path) -> None:
    publish(index)
    index.answer(FILE, Reply(drop_after=1_000_000), *[Reply(status=503)] * 9)
    with pytest.raises(DownloadFailed, match="cannot fetch the sources"):
        get(tmp_path)
    index.answer(FILE)
    assert get(tmp_path).read_bytes() == CONTENT
    assert index.requests(FILE)[-1].range == "bytes=1000000-"


def test_wrong_data_is_deleted(index: FileServer, tmp_path: Path) -> None:
    publish(index, bytes(len(CONTENT)))
    with pytest.raises(DownloadFailed, match="has wrong data"):
        get(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_index_without_it_is_told_with_the_way_around(index: FileServer, tmp_path: Path) -> None:
    index.files[PAGE] = b"<!DOCTYPE html>"
    with pytest.raises(DownloadFailed, match="has no tiny-sources") as failed:
        get(tmp_path)
    assert "--from FILE" in failed.value.fix
    del index.files[PAGE]
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        get(tmp_path)


def test_an_index_that_asks_for_a_password_gets_it(
    index: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's help, which names the index, masks passwords."""
    publish(index)
    monkeypatch.setenv("PIP_INDEX_URL", os.environ["PIP_INDEX_URL"].replace("http://", "http://user:secret@"))
    assert get(tmp_path).read_bytes() == CONTENT


def test_the_index_of_pips_own_file_is_used(index: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(index)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nindex-url = {index.url}/simple/\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.delenv("PIP_INDEX_URL")
    assert get(tmp_path / "cache").read_bytes() == CONTENT


def test_a_file_of_the_users_is_used_where_it_lies(tmp_path: Path) -> None:
    mine = tmp_path / "mine.tar.gz"
    mine.write_bytes(CONTENT)
    assert get(tmp_path / "cache", local=mine, offline=True) == mine
    assert not (tmp_path / "cache").exists()
    mine.write_bytes(CONTENT[:-1])
    with pytest.raises(InvalidInput, match="is not tiny-sources"):
        get(tmp_path / "cache", local=mine)
    with pytest.raises(NotFound, match="there is no file"):
        get(tmp_path / "cache", local=tmp_path / "nothing")


def test_offline_it_is_not_asked_for(index: FileServer, tmp_path: Path) -> None:
    publish(index)
    with pytest.raises(DownloadFailed, match="the network is off"):
        get(tmp_path, offline=True)
    assert index.served == []
