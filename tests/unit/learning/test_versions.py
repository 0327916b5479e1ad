"""Versions: their names, going back to exactly what served before, and a bounded number on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from peft_core.api_types import Task
from peft_core.errors import Conflict
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import Acceptance
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.learning.state import LearnedVersion, RepositoryState
from peft_daemon.learning.versions import (
    MAX_VERSIONS,
    choose_name,
    describe_serving,
    difference_interval,
    go_back,
    remove_old,
    run_folder,
    serving_now,
)
from support.synthetic_adapter import lora, write_peft

Store = Callable[[str, int], Manifest]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = (tmp_path / "My Shop").resolve()
    folder.mkdir()
    return folder


def learned(
    registry: AdapterRegistry, store: Store, root: Path, seed: int, state: RepositoryState | None = None
) -> RepositoryState:
    """The state after a run, whose adapter is in use."""
    state = state or RepositoryState(root=str(root), adapter="shop", base_sha256="b")
    digest, setting = serving_now(registry, str(root))
    made = store("shop", seed)
    registry.use("shop", Task.FILL, root)
    version = LearnedVersion(digest=made.digest, since=1.0, before=digest, setting_before=setting)
    return msgspec.structs.replace(state, serving=version)


def test_a_name_is_made_of_the_folder_and_kept_for_the_base(
    registry: AdapterRegistry, store: Store, root: Path
) -> None:
    state = RepositoryState(root=str(root))
    assert choose_name(registry, state, [], "b") == "my-shop-learned"
    store("my-shop-learned", 1)
    assert choose_name(registry, state, [], "b") == "my-shop-2-learned"
    assert choose_name(registry, state, ["my-shop-2-learned"], "b") == "my-shop-3-learned"
    mine = msgspec.structs.replace(state, adapter="my-shop-learned", base_sha256="b")
    assert choose_name(registry, mine, [], "b") == "my-shop-learned"
    assert choose_name(registry, mine, [], "another base") == "my-shop-2-learned"


def test_going_back_from_the_first_version_leaves_the_folder_without_a_setting(
    registry: AdapterRegistry, store: Store, root: Path
) -> None:
    store("everywhere", 9)
    registry.use("everywhere", Task.FILL)
    before = serving_now(registry, str(root))
    assert before == (registry.get("everywhere").digest, None)
    state = learned(registry, store, root, 1)
    assert serving_now(registry, str(root))[1] == "shop"
    back = go_back(registry, state)
    assert serving_now(registry, str(root)) == before
    assert back.serving is None and back.unused == (registry.get("shop").digest,)
    with pytest.raises(Conflict, match="nothing that was learned"):
        go_back(registry, back)


def test_going_back_from_a_later_version_serves_the_one_before(
    registry: AdapterRegistry, store: Store, root: Path
) -> None:
    first = learned(registry, store, root, 1)
    assert first.serving is not None
    back = go_back(registry, learned(registry, store, root, 2, first))
    assert serving_now(registry, str(root)) == (first.serving.digest, "shop")
    assert registry.get("shop").digest == first.serving.digest and len(back.unused) == 1


def test_going_back_to_what_the_user_had_chosen_for_the_folder(
    registry: AdapterRegistry, store: Store, root: Path
) -> None:
    store("chosen", 5)
    for choice in ("chosen", "base"):
        registry.use(choice, Task.FILL, root)
        before = serving_now(registry, str(root))
        go_back(registry, learned(registry, store, root, 6))
        assert serving_now(registry, str(root)) == before and before[1] == choice


def test_going_back_after_versions_that_never_served(registry: AdapterRegistry, store: Store, root: Path) -> None:
    first = learned(registry, store, root, 1)
    assert first.serving is not None
    registry.use(first.serving.digest, Task.FILL, root)
    store("shop", 2)  # refused, and the name was not in use
    go_back(registry, learned(registry, store, root, 3, first))
    assert serving_now(registry, str(root))[0] == first.serving.digest


def test_going_back_shows_as_much_of_other_files_as_before(registry: AdapterRegistry, store: Store, root: Path) -> None:
    registry.show_context(300, root)
    state = learned(registry, store, root, 1)
    assert state.serving is not None and registry.context_tokens(str(root), Settings()) == 0
    version = msgspec.structs.replace(state.serving, context_before=300)
    go_back(registry, msgspec.structs.replace(state, serving=version))
    assert registry.context_tokens(str(root), Settings()) == 300


def test_a_choice_of_the_user_is_not_undone(registry: AdapterRegistry, store: Store, root: Path) -> None:
    state = learned(registry, store, root, 1)
    store("chosen", 5)
    registry.use("chosen", Task.FILL, root)
    with pytest.raises(Conflict):
        go_back(registry, state)
    assert serving_now(registry, str(root))[1] == "chosen"


def test_few_versions_are_kept_and_what_is_needed_to_go_back_is_among_them(
    registry: AdapterRegistry, store: Store, root: Path, paths: Paths
) -> None:
    state: RepositoryState | None = None
    digests = []
    for seed in range(1, 7):
        state = learned(registry, store, root, seed, state)
        assert state.serving is not None
        digests.append(state.serving.digest)
        notes = paths.data / "learned" / f"{state.serving.digest}.json"
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text("[]")
        run_folder(paths, "shop").mkdir(parents=True)
        left, _removed = remove_old(registry, paths, state, newest=state.serving.digest)
        state = msgspec.structs.replace(state, unused=left)
        assert not run_folder(paths, "shop").exists()
    assert [each.digest for each in registry.history("shop")] == digests[-MAX_VERSIONS:]
    blobs = registry.folder / "blobs"
    assert {each.name for each in blobs.iterdir()} == {*digests[-MAX_VERSIONS:]}
    assert {each.stem for each in (paths.data / "learned").iterdir()} == {*digests[-MAX_VERSIONS:]}
    assert state is not None
    go_back(registry, state)
    assert serving_now(registry, str(root))[0] == digests[-2]


def test_a_refused_version_is_removed_by_the_next_run_and_one_that_a_name_means_stays(
    registry: AdapterRegistry, store: Store, base: BaseModel, root: Path, paths: Paths, tmp_path: Path
) -> None:
    state = learned(registry, store, root, 1)
    assert state.serving is not None
    folder = write_peft(tmp_path / "refused", lora(seed=2))
    refused = registry.import_(folder, name="shop", base=base, moves_name=False)
    assert serving_now(registry, str(root))[0] == state.serving.digest, "the name was not moved"
    chosen = store("chosen", 3)
    state = msgspec.structs.replace(state, unused=(refused.digest, chosen.digest))
    assert remove_old(registry, paths, state, newest=refused.digest) == ((refused.digest, chosen.digest), 0)
    assert remove_old(registry, paths, state, newest="another") == ((chosen.digest,), 1)
    assert {each.digest for each in registry.list_adapters()} == {state.serving.digest, chosen.digest}


def test_what_serves_is_told_with_what_was_measured_and_accepted(
    registry: AdapterRegistry, base: BaseModel, root: Path, tmp_path: Path
) -> None:
    state = RepositoryState(root=str(root), outcomes={"": "10"})
    bare = describe_serving(registry, state)
    assert (bare.name, bare.learned, bare.gain, bare.acceptance) == ("", False, None, Acceptance(1, 2))
    metrics = {"gate_exact": 0.43, "gate_exact_served": 0.36, "gate_holes": 14.0}
    made = registry.import_(
        write_peft(tmp_path / "peft", lora(seed=3), record={"metrics": metrics}), name="shop", base=base
    )
    registry.use("shop", Task.FILL, root)
    by_hand = describe_serving(registry, state)
    assert (by_hand.name, by_hand.learned, by_hand.acceptance_before) == ("shop", False, None)
    assert by_hand.since == pytest.approx(time.time(), abs=60)
    version = LearnedVersion(digest=made.digest, since=1.0)
    told = describe_serving(
        registry, msgspec.structs.replace(state, serving=version, outcomes={made.digest: "110", "": "10"})
    )
    assert told.learned and (told.acceptance, told.acceptance_before) == (Acceptance(2, 3), Acceptance(1, 2))
    gain = told.gain
    assert gain is not None and (gain.exact, gain.exact_before, gain.places) == (0.43, 0.36, 14)
    assert gain.low < 0.07 < gain.high


def test_the_interval_of_a_difference_is_the_published_one() -> None:
    # The first example of Newcombe 1998, table II, method 10.
    published = (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))
    assert difference_interval(56 / 70, 70, 48 / 80, 80) == published
    assert difference_interval(1.0, 10, 0.0, 10)[1] == pytest.approx(1.0)
    low, high = difference_interval(0.3, 1_000, 0.3, 1_000)
    assert -low == pytest.approx(high) and high < 0.05
