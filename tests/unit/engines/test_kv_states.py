"""Saved KV states: found by tokens and weights, bounded, private, and gone when they are of no use."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.engines.llamacpp.saved_states import (
    UNPAIRED_FILE_MAX_AGE_S,
    AdapterScales,
    SavedStateStore,
    fingerprint,
)
from peft_daemon.engines.llamacpp.slots import shared_length

SIZE = 1000
LONG = list(range(200))
ADAPTER: AdapterScales = (("a" * 64, 0.5),)


def opened(folder: Path, *, mark: str = "same", limit_bytes: int = 10 * SIZE) -> SavedStateStore:
    return SavedStateStore(folder, fingerprint=mark, limit_bytes=limit_bytes)


def save(states: SavedStateStore, tokens: list[int], weights: AdapterScales = (), size: int = SIZE) -> None:
    file = states.new_file()
    (states.folder / file).write_bytes(os.urandom(size))
    states.add(file, states.read(file, tokens, weights))


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_what_two_sequences_share_is_their_common_beginning(left: list[int], right: list[int]) -> None:
    known = shared_length(left, right)
    assert left[:known] == right[:known]
    assert known == min(len(left), len(right)) or left[known] != right[known]


def test_the_state_that_holds_most_of_a_prompt_is_found(tmp_path: Path) -> None:
    states = opened(tmp_path)
    save(states, LONG)
    save(states, [*LONG[:100], *([7] * 300)])
    found = states.best([*LONG[:150], 9], ())
    assert found is not None and (found.shared, found.record.tokens) == (150, tuple(LONG))
    assert states.best([5], ()) is None
    assert states.unsaved([*LONG, 1, 2], ()) == 2


def test_a_state_is_not_found_under_other_weights(tmp_path: Path) -> None:
    states = opened(tmp_path)
    save(states, LONG, ADAPTER)
    for weights in ((), (("b" * 64, 0.5),), (("a" * 64, 1.0),)):
        assert states.best(LONG, weights) is None
    assert states.best(LONG, ADAPTER) is not None


def test_states_are_there_after_a_restart(tmp_path: Path) -> None:
    save(opened(tmp_path), LONG, ADAPTER)
    found = opened(tmp_path).best(LONG, ADAPTER)
    assert found is not None and found.shared == len(LONG)


@pytest.mark.skipif(sys.platform == "win32", reason="the rights of the profile keep them private there")
def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    folder.mkdir(mode=0o755)
    states = opened(folder)
    save(states, LONG)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (about,) = folder.glob("*.json")
    assert stat.S_IMODE(about.stat().st_mode) == 0o600


def test_a_state_that_goes_on_from_another_replaces_it(tmp_path: Path) -> None:
    states = opened(tmp_path)
    save(states, LONG)
    save(states, LONG, ADAPTER)
    save(states, [*LONG[:-10], *([3] * 100)])
    assert sorted(len(about.tokens) for about in states) == [200, 290]
    assert len(list(tmp_path.glob("*.kv"))) == 2


def test_the_least_recently_used_go_when_there_is_no_room(tmp_path: Path) -> None:
    states = opened(tmp_path, limit_bytes=3 * SIZE)
    for first in (1000, 2000, 3000):
        save(states, [first, *LONG])
    kept = states.best([1000, *LONG], ())
    assert kept is not None
    states.used(kept)
    save(states, [4000, *LONG])
    assert {about.tokens[0] for about in states} == {1000, 3000, 4000}
    assert states.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.kv")) == 3 * SIZE


def test_use_is_remembered_over_a_restart(tmp_path: Path) -> None:
    states = opened(tmp_path)
    for number, first in enumerate((1000, 2000)):
        save(states, [first, *LONG])
        for path in tmp_path.glob("*.json"):
            os.utime(path, (path.stat().st_mtime, path.stat().st_mtime - 100 + number))
    found = states.best([1000, *LONG], ())
    assert found is not None
    states.used(found)
    again = opened(tmp_path, limit_bytes=2 * SIZE)
    save(again, [3000, *LONG])
    assert {about.tokens[0] for about in again} == {1000, 3000}


def test_one_that_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    states = opened(tmp_path)
    save(states, LONG)
    save(states, [5, *LONG], size=11 * SIZE)
    assert [about.tokens[0] for about in states] == [0]
    assert files(tmp_path) == {".kv", ".json"}


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_state_is_not_intact(tmp_path: Path, damage: str) -> None:
    states = opened(tmp_path)
    save(states, LONG)
    found = states.best(LONG, ())
    assert found is not None and states.intact(found)
    path = tmp_path / states.file(found)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    assert not states.intact(found)


def test_states_of_another_base_or_build_are_deleted(tmp_path: Path) -> None:
    save(opened(tmp_path), LONG)
    assert len(opened(tmp_path, mark="other")) == 0
    assert files(tmp_path) == set()
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("b", 1), fingerprint("a1")}) == 4


@pytest.mark.parametrize("text", [b"", b"{", b'{"tokens": "x"}'])
def test_an_unreadable_note_is_deleted_with_its_state(tmp_path: Path, text: bytes) -> None:
    save(opened(tmp_path), LONG)
    next(tmp_path.glob("*.json")).write_bytes(text)
    assert len(opened(tmp_path)) == 0
    assert files(tmp_path) == set()


def test_what_was_left_unfinished_is_deleted_later(tmp_path: Path) -> None:
    states = opened(tmp_path)
    for name in (states.new_file(), "0123.kv"):
        (tmp_path / name).write_bytes(b"half")
    opened(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "another engine may be writing them"
    old = time.time() - UNPAIRED_FILE_MAX_AGE_S - 1
    for path in tmp_path.iterdir():
        os.utime(path, (old, old))
    opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_engines_share_a_folder(tmp_path: Path) -> None:
    one, other = opened(tmp_path, limit_bytes=2 * SIZE), opened(tmp_path, limit_bytes=2 * SIZE)
    save(one, [1000, *LONG])
    save(other, [2000, *LONG])
    save(one, [3000, *LONG])
    assert {about.tokens[0] for about in one} == {2000, 3000}
    lost = other.best([1000, *LONG], ())
    assert lost is None or not other.intact(lost)
    save(other, [4000, *LONG])
    assert {about.tokens[0] for about in other} == {3000, 4000}


def test_a_new_file_that_is_not_wanted_leaves_nothing(tmp_path: Path) -> None:
    states = opened(tmp_path)
    file = states.new_file()
    (tmp_path / file).write_bytes(b"x")
    states.drop(file)
    states.drop(file)
    assert list(tmp_path.iterdir()) == []
