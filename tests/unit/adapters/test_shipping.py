"""Adapters that come with the package: there from the start, and the user's from then on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from peft_core.api_types import Task
from peft_core.errors import Conflict
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import Manifest, TrainingRecord
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import (
    SHIPPED_FOLDER,
    import_shipped_adapters,
    update_shipped_adapters,
    withdraw_unchosen,
)
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import lora, write_peft

Store = Callable[..., Manifest]
DEFAULTS = {"answerer": Task.INTENT, "filler": Task.FILL}


def ship(folder: Path, base: BaseModel, *, seed: int = 1, base_sha256: str | None = None) -> Path:
    """Write the adapters of one release into ``folder``."""
    for number, (name, task) in enumerate(DEFAULTS.items()):
        record = {"base": "tiny", "base_sha256": base_sha256 or base.sha256, "tasks": [task.value]}
        write_peft(folder / name, lora(seed=seed + number * 100), record=record)
    return folder


@pytest.fixture
def shipped(base: BaseModel, tmp_path: Path) -> Path:
    return ship(tmp_path / "shipped", base)


def serving(registry: AdapterRegistry) -> dict[str, Task]:
    found = {task: registry.resolve(task) for task in Task}
    return {manifest.name: task for task, manifest in found.items() if manifest is not None}


def provide_as_before(registry: AdapterRegistry, base: BaseModel, shipped: Path) -> None:
    """Leave a home as earlier packages did: each adapter serves its task, and the record does not say so."""
    import_shipped_adapters(registry, base, shipped)
    registry.use("answerer", Task.INTENT)
    registry.use("filler", Task.FILL)
    record = registry.folder / "shipped.json"
    rows = json.loads(record.read_bytes())
    record.write_text(json.dumps({name: {k: row[k] for k in ("content", "digest")} for name, row in rows.items()}))


def test_one_that_fills_in_serves_and_one_for_sentences_waits_to_be_chosen(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    assert [manifest.name for manifest in import_shipped_adapters(registry, base, shipped)] == ["answerer", "filler"]
    assert serving(registry) == {"filler": Task.FILL}
    registry.use("answerer")
    assert serving(registry) == DEFAULTS
    assert withdraw_unchosen(registry) == [], "it was chosen"
    assert serving(registry) == DEFAULTS


def test_a_home_where_sentences_were_given_away_unchosen_changes_over_once(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    provide_as_before(registry, base, shipped)
    assert serving(registry) == DEFAULTS
    assert withdraw_unchosen(registry) == ["answerer"]
    assert serving(registry) == {"filler": Task.FILL}
    assert registry.get("answerer").tasks == (Task.INTENT,), "it can still be chosen"
    registry.use("answerer")
    assert withdraw_unchosen(registry) == []
    assert import_shipped_adapters(registry, base, shipped) == []
    assert serving(registry) == DEFAULTS


@pytest.mark.parametrize("choose", ["again", "for all", "in a folder", "by digest", "another of that name"])
def test_what_the_user_chose_for_sentences_survives_the_change(
    registry: AdapterRegistry, base: BaseModel, shipped: Path, store: Store, choose: str
) -> None:
    provide_as_before(registry, base, shipped)
    folder = None
    match choose:
        case "again":
            registry.use("base", Task.INTENT)
            registry.use("answerer", Task.INTENT)
        case "for all":
            for task in Task:
                registry.use("answerer", task)
        case "in a folder":
            folder = shipped
            registry.use("answerer", Task.INTENT, folder)
        case "by digest":
            registry.use(registry.get("answerer").digest, Task.INTENT)
        case _:
            store("answerer", 7, Task.INTENT)
    chosen = registry.get("answerer").digest
    withdraw_unchosen(registry)
    found = registry.resolve(Task.INTENT, str(folder) if folder else None)
    assert found is not None and found.digest == chosen


def test_a_home_changes_over_whatever_fills_in_there(
    registry: AdapterRegistry, base: BaseModel, shipped: Path, store: Store
) -> None:
    store("own", 7)
    provide_as_before(registry, base, shipped)
    registry.use("base", Task.FILL)
    registry.use("own", Task.FILL)
    assert withdraw_unchosen(registry) == ["answerer"]
    assert serving(registry) == {"own": Task.FILL}


def test_it_happens_once(registry: AdapterRegistry, base: BaseModel, shipped: Path) -> None:
    import_shipped_adapters(registry, base, shipped)
    for each in (registry, AdapterRegistry(registry.folder)):
        assert import_shipped_adapters(each, base, shipped) == []


def test_what_the_user_had_chosen_stays(
    registry: AdapterRegistry, base: BaseModel, shipped: Path, store: Store
) -> None:
    store("own", 7)
    registry.use("own", Task.FILL)
    import_shipped_adapters(registry, base, shipped)
    assert serving(registry) == {"own": Task.FILL}


def test_what_the_user_switches_off_or_removes_does_not_come_back(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    import_shipped_adapters(registry, base, shipped)
    registry.use("base", Task.FILL)
    registry.remove("answerer")
    assert import_shipped_adapters(registry, base, shipped) == []
    assert serving(registry) == {}


def test_a_newer_release_is_the_next_version_and_can_be_rolled_back(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    [_, first] = import_shipped_adapters(registry, base, shipped)
    [_, second] = import_shipped_adapters(registry, base, ship(shipped, base, seed=2))
    assert registry.get("filler").digest == second.digest != first.digest
    assert serving(registry) == {"filler": Task.FILL}, "an update switches nothing on"
    assert registry.rollback("filler").digest == first.digest
    assert import_shipped_adapters(registry, base, shipped) == [], "nor does it undo what the user did"
    assert registry.get("filler").digest == first.digest


def test_a_successor_serves_where_the_earlier_one_did_unless_it_was_chosen(
    registry: AdapterRegistry, base: BaseModel, shipped: Path, tmp_path: Path
) -> None:
    import_shipped_adapters(registry, base, shipped)
    later = ship(tmp_path / "later", base, seed=2)
    shutil.rmtree(later / "answerer")
    (later / "filler").rename(later / "better")
    assert [each.name for each in import_shipped_adapters(registry, base, later, successors={"better": "filler"})] == [
        "better"
    ]
    assert serving(registry) == {"better": Task.FILL}
    assert registry.get("filler"), "it can still be chosen"
    registry.use("filler")
    assert import_shipped_adapters(registry, base, later, successors={"better": "filler"}) == []
    assert serving(registry) == {"filler": Task.FILL}


@pytest.mark.parametrize("chosen", ["base", "own"])
def test_a_successor_leaves_what_was_chosen(
    registry: AdapterRegistry, base: BaseModel, shipped: Path, tmp_path: Path, store: Store, chosen: str
) -> None:
    import_shipped_adapters(registry, base, shipped)
    store("own", 7)
    registry.use("base", Task.FILL)
    registry.use(chosen, Task.FILL)
    later = ship(tmp_path / "later", base, seed=2)
    (later / "filler").rename(later / "better")
    import_shipped_adapters(registry, base, later, successors={"better": "filler"})
    assert serving(registry) == ({} if chosen == "base" else {chosen: Task.FILL})


def test_a_name_the_user_gave_to_something_else_is_left_alone(
    registry: AdapterRegistry, base: BaseModel, shipped: Path, store: Store
) -> None:
    own = store("filler", 7)
    assert [manifest.name for manifest in import_shipped_adapters(registry, base, shipped)] == ["answerer"]
    assert registry.get("filler").digest == own.digest
    assert serving(registry) == {}


def test_a_removed_one_stays_removed_when_a_newer_release_comes(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    import_shipped_adapters(registry, base, shipped)
    registry.remove("filler", force=True)
    assert [manifest.name for manifest in import_shipped_adapters(registry, base, ship(shipped, base, seed=2))] == [
        "answerer"
    ]


def test_another_base_gets_nothing(registry: AdapterRegistry, base: BaseModel, tmp_path: Path) -> None:
    assert import_shipped_adapters(registry, base, ship(tmp_path / "shipped", base, base_sha256="0" * 64)) == []


def test_an_unreadable_record_is_named(registry: AdapterRegistry, base: BaseModel, shipped: Path) -> None:
    import_shipped_adapters(registry, base, shipped)
    (registry.folder / "shipped.json").write_text("{")
    with pytest.raises(Conflict, match=r"shipped\.json"):
        import_shipped_adapters(registry, base, shipped)


def test_who_wants_none_gets_none(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    assert update_shipped_adapters(Settings(shipped_adapters=False), paths) == []
    assert not paths.adapters.exists()


@pytest.mark.parametrize(
    "folder", sorted(each for each in SHIPPED_FOLDER.iterdir() if each.is_dir()), ids=lambda folder: folder.name
)
def test_what_is_shipped_is_small_and_says_where_it_comes_from(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12_000_000
    record = msgspec.json.decode((folder / "peft-daemon.json").read_bytes(), type=TrainingRecord)
    assert len(record.tasks) == 1
    assert record.base_sha256 and record.data_digest and record.versions
    assert "NC" not in record.licence and record.licence not in {"", "unknown"}
    assert (folder / "README.md").read_text(encoding="utf-8").strip()


def test_one_whose_files_were_damaged_is_imported_again(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    import_shipped_adapters(registry, base, shipped)
    registry.use("base", Task.FILL)
    path = registry.lease(registry.get("filler")).path
    path.write_bytes(path.read_bytes()[:-9])
    assert [manifest.name for manifest in import_shipped_adapters(registry, base, shipped)] == ["filler"]
    registry.require_intact(registry.get("filler"))
    assert serving(registry) == {}


def test_a_base_that_answers_only_sentences_gets_only_adapters_for_them(
    registry: AdapterRegistry, base: BaseModel, shipped: Path
) -> None:
    (imported,) = import_shipped_adapters(registry, base, shipped, answers=(Task.INTENT,))
    assert imported.name == "answerer" and serving(registry) == {}
    # The other one comes, and serves, once this base fills in.
    (imported,) = import_shipped_adapters(registry, base, shipped)
    assert imported.name == "filler" and serving(registry) == {"filler": Task.FILL}
