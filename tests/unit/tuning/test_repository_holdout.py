"""Who may see what."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from peft_tuning.data.examples import MAX_SPLIT_OVERSHOOT, Split, newest_first, split_files


def test_the_newest_files_are_held_out() -> None:
    times = {f"{n}.py": n for n in range(100)}
    order = newest_first(list(times), times, seed=1)
    parts = split_files(dict.fromkeys(order, 10), validation=0.1, test=0.1)
    held = {part: {path for path in parts if parts[path] is part} for part in Split}
    assert held[Split.TEST] == {f"{n}.py" for n in range(90, 100)}
    assert held[Split.VALIDATION] == {f"{n}.py" for n in range(80, 90)}


def test_without_history_files_are_drawn_by_seed() -> None:
    paths = [f"{n}.py" for n in range(50)]
    assert newest_first(paths, {}, 1) == newest_first(paths[::-1], {}, 1)
    assert newest_first(paths, {}, 1) != newest_first(paths, {}, 2)
    assert newest_first(paths, {}, 1) != paths


def test_a_file_too_large_for_its_part_is_learned_from() -> None:
    parts = split_files({"huge.py": 900, "a.py": 50, "b.py": 60, "c.py": 40}, validation=0.1, test=0.1)
    assert parts["huge.py"] is Split.TRAIN
    assert set(parts.values()) == set(Split)


@given(st.lists(st.integers(1, 500), min_size=3, max_size=60))
def test_no_part_is_empty_and_none_outgrows_its_share(weights: list[int]) -> None:
    files = {f"{n}.py": weight for n, weight in enumerate(weights)}
    parts = split_files(files, validation=0.1, test=0.1)
    assert set(parts.values()) == set(Split)
    assert set(parts) == set(files)
    sizes = Counter({part: sum(files[p] for p in files if parts[p] is part) for part in Split})
    for part in (Split.TEST, Split.VALIDATION):
        alone = sum(each is part for each in parts.values()) == 1
        assert alone or sizes[part] <= MAX_SPLIT_OVERSHOOT * 0.1 * sum(weights)
