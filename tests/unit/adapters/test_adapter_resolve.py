"""Which adapter answers a request: requested, nearest repository, everywhere, none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.api_types import Task
from peft_core.errors import InvalidInput, NotFound
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import Manifest, derive_name, require_usable_name
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.registry_state import ActiveAdapters, RegistryFiles, RepositoryAdapters
from support.own_repository import OwnRepository

Store = Callable[..., Manifest]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "sub" / "deep").mkdir(parents=True)
    return tmp_path / "project"


def resolved(registry: AdapterRegistry, path: Path | None = None, task: Task = Task.FILL) -> str | None:
    manifest = registry.resolve(task, None if path is None else str(path))
    return manifest.name if manifest else None


def test_without_any_setting_the_base_answers(registry: AdapterRegistry, store: Store) -> None:
    assert resolved(registry) is None
    store("mine")
    assert resolved(registry) is None


def test_the_nearest_repository_wins_then_everywhere(registry: AdapterRegistry, store: Store, project: Path) -> None:
    for seed, name in enumerate(["everywhere", "outer", "inner"], start=1):
        store(name, seed)
    registry.use("everywhere")
    registry.use("outer", repository=project)
    registry.use("inner", repository=project / "sub")
    assert resolved(registry, project / "sub" / "deep" / "x.py") == "inner"
    assert resolved(registry, project / "sub") == "inner"
    assert resolved(registry, project / "x.py") == "outer"
    assert resolved(registry, project / "subway.py") == "outer"
    assert resolved(registry, project.parent / "project2" / "x.py") == "everywhere"
    assert resolved(registry) == "everywhere"


def test_each_task_has_its_own_adapter(registry: AdapterRegistry, store: Store, project: Path) -> None:
    store("filler", 1)
    store("writer", 2)
    registry.use("filler", Task.FILL)
    registry.use("writer", Task.INTENT, project)
    assert resolved(registry, project / "x.py", Task.FILL) == "filler"
    assert resolved(registry, project / "x.py", Task.INTENT) == "writer"
    assert resolved(registry, None, Task.INTENT) is None


def test_base_everywhere_clears_the_setting(registry: AdapterRegistry, store: Store) -> None:
    store("mine")
    registry.use("mine")
    assert registry.use("base", Task.FILL) is None
    assert resolved(registry) is None
    assert resolved(registry, task=Task.INTENT) == "mine"


def test_base_in_a_repository_shields_it_until_unset(registry: AdapterRegistry, store: Store, project: Path) -> None:
    store("mine")
    registry.use("mine")
    registry.use("base", repository=project)
    assert resolved(registry, project / "x.py") is None
    registry.unset(None, project)
    assert resolved(registry, project / "x.py") == "mine"


FOUND, OFF = Settings(), Settings(repository_context=0)


def test_code_of_other_files_is_shown_where_the_gate_found_that_it_helps(
    registry: AdapterRegistry, store: Store, project: Path
) -> None:
    store("mine")
    inside, beside = str(project / "sub" / "x.py"), str(project.parent / "y.py")
    registry.show_context(300, project)
    assert resolved(registry, project / "x.py") is None, "that is no choice of an adapter"
    assert (registry.context_tokens(inside, FOUND), registry.context_tokens(beside, FOUND)) == (300, 0)
    assert registry.context_tokens(inside, OFF) == 0
    assert registry.context_tokens(beside, Settings(repository_context=200)) == 200
    assert registry.context_tokens(inside, Settings(engine="upstream")) == 0, "nobody agreed that it leaves the machine"
    registry.use("mine", Task.FILL, project / "sub")
    assert registry.context_tokens(inside, FOUND) == 0, "it was found with another adapter"
    assert registry.context_tokens(str(project), FOUND) == 300


@pytest.mark.parametrize(
    "change",
    [
        lambda registry, project: registry.use("base", Task.FILL, project),
        lambda registry, project: registry.unset(Task.FILL, project),
        lambda registry, project: registry.rollback("mine"),
        lambda registry, project: registry.remove("mine", force=True),
        lambda registry, project: registry.show_context(0, project),
    ],
)
def test_what_the_gate_found_is_forgotten_with_the_adapter(
    registry: AdapterRegistry, store: Store, project: Path, change: Callable[[AdapterRegistry, Path], object]
) -> None:
    store("mine", 1)
    store("mine", 2)
    registry.use("mine", Task.FILL, project)
    registry.show_context(300, project)
    registry.use("mine", Task.INTENT, project)
    assert registry.context_tokens(str(project), FOUND) == 300
    change(registry, project)
    assert registry.context_tokens(str(project), FOUND) == 0


def test_a_requested_adapter_outweighs_all_settings(registry: AdapterRegistry, store: Store, project: Path) -> None:
    store("mine", 1)
    other = store("other", 2)
    registry.use("mine")
    assert registry.resolve(Task.FILL, str(project), "base") is None
    for requested in ("other", other.digest, other.digest[:8]):
        assert registry.resolve(Task.FILL, str(project), requested) == other
    with pytest.raises(NotFound):
        registry.resolve(Task.FILL, str(project), "gone")


def test_a_used_name_follows_imports_and_rollbacks_and_a_used_digest_stays(
    registry: AdapterRegistry, store: Store
) -> None:
    old = store("mine", 1)
    registry.use("mine", Task.FILL)
    registry.use(old.digest[:10], Task.INTENT)
    new = store("mine", 2)
    assert registry.resolve(Task.FILL) == new
    fixed = registry.resolve(Task.INTENT)
    assert fixed is not None
    assert fixed.digest == old.digest
    registry.rollback("mine")
    assert registry.resolve(Task.FILL) == old


def test_another_instances_change_is_seen_by_the_next_request(
    registry: AdapterRegistry, store: Store, tmp_path: Path
) -> None:
    daemon = AdapterRegistry(tmp_path / "registry")
    assert daemon.resolve(Task.FILL) is None
    for seed in range(1, 6):
        manifest = store("mine", seed)
        registry.use("mine")
        assert daemon.resolve(Task.FILL) == manifest
    registry.remove("mine", force=True)
    assert daemon.resolve(Task.FILL) is None
    with pytest.raises(NotFound):
        daemon.get(manifest.digest)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_repository_is_found_by_the_spelling_given_and_by_the_real_one(
    registry: AdapterRegistry, store: Store, project: Path, tmp_path: Path
) -> None:
    store("mine")
    (tmp_path / "link").symlink_to(project)
    registry.use("mine", repository=tmp_path / "link")
    assert resolved(registry, tmp_path / "link" / "x.py") == "mine"
    assert resolved(registry, project / "x.py") == "mine"
    registry.unset(None, project)
    assert resolved(registry, tmp_path / "link" / "x.py") is None


@pytest.mark.parametrize("path", ["", "x.py", "relative/x.py", "~/x.py", "file:///x.py", "\0", "/../..//x"])
def test_a_path_that_names_no_place_gets_what_applies_everywhere(
    registry: AdapterRegistry, store: Store, project: Path, path: str
) -> None:
    store("mine")
    registry.use("mine", repository=project)
    assert registry.resolve(Task.FILL, path) is None


def test_dots_in_a_path_do_not_enter_a_repository(registry: AdapterRegistry, store: Store, project: Path) -> None:
    store("mine")
    registry.use("mine", repository=project)
    assert resolved(registry, project / ".." / "x.py") is None


def test_a_repository_that_does_not_exist_is_not_found(registry: AdapterRegistry, store: Store, project: Path) -> None:
    store("mine")
    with pytest.raises(NotFound, match="no folder"):
        registry.use("mine", repository=project / "nothing")


def test_the_list_says_where_each_adapter_is_in_use(registry: AdapterRegistry, store: Store, project: Path) -> None:
    store("mine", 1)
    store("other", 2)
    registry.use("mine", Task.FILL)
    registry.use("other", Task.INTENT, project)
    rows = {row.name: row.active_for for row in registry.list_adapters()}
    assert rows == {"mine": ["fill"], "other": [f"intent@{project}"]}
    assert registry.find_uses(registry.get("other")) == [f"intent@{project}"]


def test_what_is_in_use_anywhere_is_listed_once_everywhere_first(
    registry: AdapterRegistry, store: Store, project: Path
) -> None:
    assert registry.in_use() == []
    for seed, name in enumerate(["here", "everywhere", "unused"], start=1):
        store(name, seed)
    registry.use("here", repository=project)
    registry.use("everywhere")
    registry.use("base", Task.FILL, project / "sub")
    assert [manifest.name for manifest in registry.in_use()] == ["everywhere", "here"]


# What an adapter may be called, and names made from what people call their folders.


@pytest.mark.parametrize("name", ["mine", "a", "0", "my-repo.v2_lora", "x" * 64])
def test_a_plain_word_is_a_name(name: str) -> None:
    require_usable_name(name)


@pytest.mark.parametrize("name", ["", "base", "Mine", "-x", "../x", "a/b", "a b", "x" * 65, "ab" * 32, "é", "a\n"])
def test_nothing_else_is(name: str) -> None:
    with pytest.raises(InvalidInput):
        require_usable_name(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my-repo", "my-repo-lora"),
        ("My Repo (copy)", "my-repo-copy-lora"),
        (".dotfiles", "dotfiles-lora"),
        ("代码", "code-lora"),
        ("", "code-lora"),
        ("a" * 80, "a" * 59 + "-lora"),
    ],
)
def test_a_folder_gives_its_adapter_a_name(folder: str, name: str) -> None:
    assert derive_name(folder, "lora") == name


@given(st.text(), st.sampled_from(["lora", "qlora-4bit", "full"]))
def test_every_folder_has_one(folder: str, method: str) -> None:
    require_usable_name(derive_name(folder, method))


@pytest.fixture
def shop(tmp_path: Path) -> OwnRepository:
    """A repository with a further work tree, ``feature``."""
    own = OwnRepository(tmp_path / "shop")
    own.commit({"app/a.py": "x = 1\n"})
    own.git("worktree", "add", "--quiet", "../feature", "-b", "feature")
    return own


def test_a_repositorys_adapter_serves_in_all_its_work_trees_also_in_later_ones(
    registry: AdapterRegistry, store: Store, shop: OwnRepository, tmp_path: Path
) -> None:
    store("mine")
    registry.use("mine", repository=shop.root)
    registry.show_context(300, shop.root)
    assert resolved(registry, tmp_path / "feature" / "app" / "a.py") == "mine"
    assert registry.context_tokens(str(tmp_path / "feature" / "a.py"), Settings()) == 300
    assert registry.own_setting(tmp_path / "feature") == registry.own_setting(shop.root)
    later = tmp_path / "later"
    assert resolved(registry, later / "a.py") is None
    shop.git("worktree", "add", "--quiet", str(later), "-b", "later")
    assert resolved(registry, later / "a.py") == "mine", "without a restart"
    shop.git("worktree", "remove", "--force", str(later))
    assert resolved(registry, later / "a.py") is None


def test_what_is_chosen_in_a_further_work_tree_is_chosen_for_the_repository(
    registry: AdapterRegistry, store: Store, shop: OwnRepository, tmp_path: Path
) -> None:
    for seed, name in enumerate(("one", "two"), 1):
        store(name, seed)
    registry.use("one", repository=shop.root)
    registry.use("two", Task.FILL, tmp_path / "feature")
    assert {resolved(registry, folder / "a.py") for folder in (shop.root, tmp_path / "feature")} == {"two"}
    registry.use("one", Task.FILL, tmp_path / "feature" / "app")
    assert resolved(registry, shop.root / "app" / "a.py") == "one" and resolved(registry, shop.root / "a.py") == "two"
    registry.unset(Task.FILL, tmp_path / "feature" / "app")
    registry.unset(None, tmp_path / "feature")
    assert resolved(registry, shop.root / "app" / "a.py") is None


def test_what_was_chosen_in_a_further_work_tree_by_an_earlier_version_serves_there_and_elsewhere(
    registry: AdapterRegistry, store: Store, shop: OwnRepository, tmp_path: Path
) -> None:
    for seed, name in enumerate(("one", "two", "three"), 1):
        store(name, seed)
    feature = tmp_path / "feature"
    old = RepositoryAdapters(str(feature), str(feature), {Task.FILL: "one"})
    files = RegistryFiles(registry.folder)
    files.write_active(ActiveAdapters({}, (old,)))
    assert {resolved(registry, folder / "a.py") for folder in (shop.root, feature)} == {"one"}
    own = RepositoryAdapters(str(shop.root), str(shop.root), {Task.FILL: "two", Task.INTENT: "three"})
    files.write_active(ActiveAdapters({}, (old, own)))
    assert (resolved(registry, feature / "a.py"), resolved(registry, shop.root / "a.py")) == ("one", "two")
    assert resolved(registry, feature / "a.py", Task.INTENT) == "three"
    registry.use("three", Task.FILL, feature)
    assert {resolved(registry, folder / "a.py") for folder in (shop.root, feature)} == {"three"}
    (only,) = files.read_active().repositories
    assert only.real == str(shop.root) and only.tasks[Task.INTENT] == "three"
