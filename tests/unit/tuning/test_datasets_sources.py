"""Places are tried in order, and a data set that is nowhere says which file to put where."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_core.http_download import keep_libraries_offline
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_tuning.data.datasets import apps, catalogue, conala
from peft_tuning.data.datasets.sources import DataLocations, find, locate


@pytest.fixture
def places(tmp_path: Path) -> DataLocations:
    return DataLocations(cache=tmp_path / "cache", environment=tmp_path / "environment", offline=True)


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


NAMES = tuple(part.names[0] for part in conala.FILES.parts.values())


def test_the_first_place_that_has_it_is_used(places: DataLocations, tmp_path: Path) -> None:
    put(places.cache / "conala", *NAMES)
    assert find(conala.FILES, places).location == "cache"
    assert places.environment is not None
    put(places.environment / "conala", *NAMES)
    assert find(conala.FILES, places).location == "PEFT_DAEMON_DATA"
    given = DataLocations(cache=places.cache, environment=places.environment, data=put(tmp_path / "mine", *NAMES))
    found = find(conala.FILES, given)
    assert found.location == "--data"
    assert {path.parent for path in found.files.values()} == {tmp_path / "mine"}


def test_a_place_with_some_of_the_files_is_passed_over(places: DataLocations) -> None:
    assert places.environment is not None
    put(places.environment / "conala", *NAMES[:2])
    put(places.cache / "conala", *NAMES)
    assert find(conala.FILES, places).location == "cache"


def test_what_is_given_is_never_passed_over(places: DataLocations, tmp_path: Path) -> None:
    put(places.cache / "conala", *NAMES)
    for folder in (put(tmp_path / "mine", *NAMES[:2]), tmp_path / "gone"):
        with pytest.raises(NotFound, match=r"conala-test\.jsonl \(rows with nl, cmd, question_id\)"):
            find(conala.FILES, DataLocations(cache=places.cache, data=folder))


def test_nowhere_says_which_file_to_put_where(places: DataLocations) -> None:
    with pytest.raises(NotFound) as caught:
        find(conala.FILES, places)
    for name in NAMES:
        assert name in caught.value.fix
    assert str(places.cache / "conala") in caught.value.fix
    assert "nl, cmd" in caught.value.fix
    assert "--data" in caught.value.fix
    assert "offline" in caught.value.why
    assert not places.cache.exists()


def test_half_of_a_fetch_is_used_only_without_a_network(places: DataLocations) -> None:
    put(places.cache / "apps", "train.jsonl")
    online = DataLocations(cache=places.cache)
    assert locate(apps.FILES, online) is None
    found = locate(apps.FILES, places)
    assert found is not None
    assert list(found.files) == ["train"]


@pytest.mark.parametrize(
    ("environ", "offline"),
    [({}, False), ({"HF_HUB_OFFLINE": "1"}, True), ({"HF_HUB_OFFLINE": "0"}, False)],
)
def test_the_environment_can_close_the_network(environ: dict[str, str], offline: bool, tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    assert DataLocations.resolve(Settings(), paths, environ=environ).offline is offline
    assert DataLocations.resolve(Settings(offline=True), paths, environ=environ).offline


def test_what_keeps_libraries_offline_lets_a_data_set_be_fetched(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    environ: dict[str, str] = {}
    for _time in range(2):
        keep_libraries_offline(environ)
        assert environ["HF_HUB_OFFLINE"] == "1"
        assert not DataLocations.resolve(Settings(), paths, environ=environ).offline
    closed = {"HF_HUB_OFFLINE": "1"}
    keep_libraries_offline(closed)
    assert DataLocations.resolve(Settings(), paths, environ=closed).offline, "the user said so"


def test_the_environment_names_folder_and_hub(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    environ = {"PEFT_DAEMON_DATA": "/data", "HF_ENDPOINT": "https://mirror.example"}
    places = DataLocations.resolve(Settings(), paths, environ=environ)
    assert (places.environment, places.endpoint) == (Path("/data"), "https://mirror.example")
    assert places.cache == tmp_path / "cache/datasets"
    with pytest.raises(InvalidInput, match="HF_ENDPOINT"):
        DataLocations.resolve(Settings(), paths, environ={"HF_ENDPOINT": "mirror"})


def test_an_unknown_name_lists_the_known_ones(places: DataLocations) -> None:
    with pytest.raises(NotFound, match="conala, codealpacapy, apps, joint"):
        catalogue.load("humaneval", places)


def test_a_file_needs_no_data_option(places: DataLocations, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--data"):
        catalogue.load("mine.jsonl", DataLocations(cache=places.cache, data=tmp_path))


@pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_pins_a_commit(entry: catalogue.DataSetEntry) -> None:
    for files in entry.files:
        assert files.repository is not None
        assert len(files.repository.commit) == 40
        assert all(part.hub for part in files.parts.values())
    assert entry.licence
    assert set(entry.sizes) == {"train", "validation", "test"}
