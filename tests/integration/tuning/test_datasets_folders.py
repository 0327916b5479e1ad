"""Folders of the ``datasets`` library, and data sets of the hub without an entry; a server of our own plays the hub."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets  # type: ignore[import-untyped]
import pytest

from peft_core.errors import DownloadFailed, InvalidInput, NotFound
from peft_tuning.data.datasets import catalogue
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import DataSet, IntentExample

COMMIT = "c0ffee" * 6 + "c0ff"
NAME = "some/data"


def pairs(count: int, first: int = 0) -> list[dict[str, object]]:
    return [{"title": f"add {n}", "solution": f"x + {n}", "id": n} for n in range(first, first + count)]


def sizes(found: DataSet) -> tuple[int, int, int]:
    return len(found.train), len(found.validation), len(found.test)


def load(name: str, home: Path, **changes: object) -> DataSet:
    return catalogue.load(name, replace(DataLocations(cache=home / "cache"), **changes))  # type: ignore[arg-type]


def test_a_saved_folder_is_read_with_its_licence_and_split_by_hash(tmp_path: Path) -> None:
    info = datasets.DatasetInfo(license="mit")
    datasets.Dataset.from_list(pairs(40), info=info).save_to_disk(str(tmp_path / "saved"))
    found = load(str(tmp_path / "saved"), tmp_path)
    assert sum(sizes(found)) == 40 and all(sizes(found))
    assert (found.name, found.licence) == ("saved", "mit")
    assert "a tenth each is validation and test" in found.provenance
    assert catalogue.label(str(tmp_path / "saved")) == "saved"


def test_saved_splits_are_kept_and_a_missing_one_is_held_out_of_train(tmp_path: Path) -> None:
    parts = {"train": pairs(40), "test": pairs(5, 100), "extra": pairs(3, 200)}
    made = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    made.save_to_disk(str(tmp_path / "saved"))
    found = load(str(tmp_path / "saved"), tmp_path)
    assert {each.intent for each in found.test if isinstance(each, IntentExample)} == {
        f"add {n}" for n in range(100, 105)
    }
    assert found.validation and len(found.train) + len(found.validation) == 40
    assert found.dropped == {"in the split 'extra', which is none of train, validation, valid, dev, test": 1}
    assert "split as published" in found.provenance


def test_columns_can_be_named_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"a": f"add {n}", "b": "x"}) + "\n" for n in range(9)))
    found = load(str(tmp_path / "mine.jsonl"), tmp_path, columns={"intent": "a", "code": "b"})
    assert sum(sizes(found)) == 9
    with pytest.raises(InvalidInput, match="'c': is missing; the row has 'a', 'b'"):
        load(str(tmp_path / "mine.jsonl"), tmp_path, columns={"intent": "a", "code": "c"})
    with pytest.raises(InvalidInput, match="no fields that can be learned"):
        load(str(tmp_path / "mine.jsonl"), tmp_path)
    with pytest.raises(InvalidInput, match="the columns of conala are known"):
        load("conala", tmp_path, columns={"intent": "a"})


def test_what_is_no_data_set_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read as a data set"):
        load(str(tmp_path / "empty"), tmp_path)
    datasets.Dataset.from_list(pairs(4)).save_to_disk(str(tmp_path / "cut"))
    (file,) = (tmp_path / "cut").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InvalidInput, match="cannot be read as a data set"):
        load(str(tmp_path / "cut"), tmp_path)


@pytest.mark.parametrize(
    "pattern", ["../secret.jsonl", "/etc/passwd", "https://example.invalid/x.jsonl", "zip://a::b", "C:/x.jsonl"]
)
def test_a_card_that_names_data_elsewhere_is_refused(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "secret.jsonl").write_text(json.dumps({"title": "secret", "solution": "key"}) + "\n")
    folder = tmp_path / "hostile"
    folder.mkdir()
    configs = json.dumps([{"config_name": "default", "data_files": [{"split": "train", "path": [pattern]}]}])
    (folder / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")
    with pytest.raises(InvalidInput, match="names data outside of its folder"):
        load(str(folder), tmp_path)


@dataclass
class Hub:
    """What it serves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = COMMIT
    asked: list[str] = field(default_factory=list)

    def serve(self, name: str, content: bytes) -> None:
        self.files[name] = content


@pytest.fixture
def hub() -> Iterator[Hub]:
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            if self.path == f"/api/datasets/{NAME}/revision/main?blobs=true":
                siblings = [{"rfilename": name, "size": len(data)} for name, data in served.files.items()]
                card = {"license": "cc-by-4.0\x1b[31m"}
                body = json.dumps({"sha": served.commit, "siblings": siblings, "cardData": card}).encode()
            else:
                start = f"/datasets/{NAME}/resolve/{served.commit}/"
                body = served.files.get(self.path.removeprefix(start), b"") if self.path.startswith(start) else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_data_set_of_the_hub_is_fetched_when_asked_for_and_then_read_offline(hub: Hub, tmp_path: Path) -> None:
    hub.serve("data/train.jsonl", lines(pairs(30)))
    hub.serve("data/test.jsonl", lines(pairs(4, 50)))
    hub.serve("run.py", b"raise SystemExit")
    hub.serve("../../outside.jsonl", lines(pairs(1)))
    with pytest.raises(NotFound, match="some/data is not here") as caught:
        load(NAME, tmp_path, endpoint=hub.url)
    assert "--download" in caught.value.fix and not hub.asked
    fetched = load(NAME, tmp_path, endpoint=hub.url, fetch=True)
    assert (len(fetched.train) + len(fetched.validation), len(fetched.test)) == (30, 4)
    assert fetched.licence == "cc-by-4.0�[31m", "what a stranger wrote cannot steer the terminal"
    assert f"hub {NAME}@{COMMIT[:12]}" in fetched.provenance
    assert not any("run.py" in each or "outside" in each for each in hub.asked)
    asked = len(hub.asked)
    again = load(NAME, tmp_path, endpoint=hub.url, offline=True, fetch=True)
    assert (again.digest, again.test, len(hub.asked)) == (fetched.digest, fetched.test, asked)


def test_one_of_several_configurations_has_to_be_named(hub: Hub, tmp_path: Path) -> None:
    configs = json.dumps([{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("one", "two")])
    hub.serve("README.md", f"---\nconfigs: {configs}\n---\n".encode())
    hub.serve("one.jsonl", lines(pairs(12)))
    hub.serve("two.jsonl", lines(pairs(20)))
    with pytest.raises(InvalidInput, match="several configurations") as caught:
        load(NAME, tmp_path, endpoint=hub.url, fetch=True)
    assert "OWNER/NAME:CONFIG" in caught.value.fix
    assert sum(sizes(load(f"{NAME}:two", tmp_path, endpoint=hub.url))) == 20
    assert catalogue.label(f"{NAME}:two") == "data-two"


def test_what_the_hub_does_not_have_or_cannot_give_is_told(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="other/data could not be fetched"):
        load("other/data", tmp_path, endpoint=hub.url, fetch=True)
    hub.serve("data.py", b"x")
    with pytest.raises(InvalidInput, match="no files that can be read") as caught:
        load(NAME, tmp_path, endpoint=hub.url, fetch=True)
    assert "refs/convert/parquet" in caught.value.fix
    hub.serve("a.jsonl", lines(pairs(12)))
    hub.commit = "main"
    with pytest.raises(InvalidInput, match="names no commit"):
        load(NAME, tmp_path, endpoint=hub.url, fetch=True)
