"""What is known of a workspace, and that it follows the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.files import list_workspace
from peft_daemon.context import index as module
from peft_daemon.context.index import (
    SMALL_INDEX_PASSAGES,
    Index,
    Postings,
    find_definitions,
    split_passages,
    split_words,
)

ORDERS = "def load_order(path: str) -> Order:\n    parcel = open_parcel(path)\n    return parcel.weight\n"
PRICES = "class Price:\n    def of_day(self, day):\n        return taxes[day] * margin\n"


def build_index(root: Path, files: dict[str, str]) -> Index:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    index = Index(root.resolve())
    refresh(index)
    return index


def refresh(index: Index) -> list[str]:
    """List the workspace again and read what changed; returns the paths that were read."""
    changed = index.set_listing(list_workspace(index.root))
    for path in changed:
        index.update(path)
    return changed


def rewrite(file: Path, text: str) -> None:
    """Write another content, with another time even if the file system's clock is coarse."""
    file.write_text(text)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))


def search_paths(index: Index, text: str, exclude: str = "") -> list[str]:
    return [each.path for each in index.search(split_words(text), 5, exclude=exclude)]


def test_passages_and_definers_are_found_but_not_in_the_file_that_asks(tmp_path: Path) -> None:
    index = build_index(tmp_path, {"orders.py": ORDERS, "sub/prices.py": PRICES, "notes.txt": "parcel weight"})
    assert search_paths(index, "parcel weight") == ["orders.py"]
    assert search_paths(index, "parcel weight", exclude="orders.py") == []
    assert index.files_defining("of_day") == index.files_defining("Price") == {"sub/prices.py"}
    assert index.files_defining("nothing") == frozenset()
    (passage,) = index.search(split_words("taxes margin"), 1, exclude="")
    assert index.passage_text(passage) == PRICES.rstrip()


def test_only_what_changed_is_read_again_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    index = build_index(tmp_path, {"orders.py": ORDERS, "prices.py": PRICES})
    assert refresh(index) == []
    rewrite(tmp_path / "orders.py", "def rank(driver):\n    return driver.route\n")
    (tmp_path / "prices.py").unlink()
    (tmp_path / "new.py").write_text("def stock(): return shelf\n")
    assert set(refresh(index)) == {"orders.py", "prices.py", "new.py"}
    assert search_paths(index, "parcel weight margin") == []
    assert search_paths(index, "route shelf") == ["new.py", "orders.py"]
    assert index.files_defining("load_order") == index.files_defining("Price") == frozenset()
    assert index.files == 2


def test_an_outline_and_a_passage_are_those_of_the_file_as_it_is(tmp_path: Path) -> None:
    index = build_index(tmp_path, {"orders.py": ORDERS})
    (passage,) = index.search(split_words("parcel"), 1, exclude="")
    assert [each.text for each in index.outline("orders.py")] == ["def load_order(path: str) -> Order: ..."]
    rewrite(tmp_path / "orders.py", "def other():\n    pass\n\n\n\nparcel = 1\n")
    assert [each.name for each in index.outline("orders.py")] == ["other"]
    assert index.passage_text(passage) == ""
    assert index.outline("missing.py") == ()


def test_files_beyond_the_bounds_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 2)
    index = build_index(tmp_path, {f"m{n}.py": ORDERS for n in range(5)})
    assert (index.files, index.left_out) == (2, 3)
    monkeypatch.setattr(module, "MAX_CHARACTERS", len(ORDERS))
    assert build_index(tmp_path / "other", {"a.py": ORDERS, "b.py": ORDERS}).left_out == 1


def test_tidying_up_after_many_changes_loses_nothing(tmp_path: Path) -> None:
    index = build_index(tmp_path, {f"m{n}.py": f"def fun{n}():\n    return parcel_{n}\n" for n in range(20)})
    for _ in range(20):
        for path in index.paths:
            index.update(path)
    index.compact()
    assert index.passages == 20
    assert len(search_paths(index, "parcel")) == 5
    index.update("m3.py")
    assert index.passages == 20
    assert index.files_defining("fun3") == {"m3.py"}


def test_a_file_that_no_longer_counts_is_not_asked_for_again(tmp_path: Path) -> None:
    index = build_index(tmp_path, {"a.py": ORDERS, "b.py": ""})
    assert refresh(index) == []
    (tmp_path / "a.py").write_bytes(b"\0\0")
    os.utime(tmp_path / "a.py", ns=(1, 5))
    assert refresh(index) == ["a.py"]
    assert refresh(index) == []
    assert search_paths(index, "parcel") == []


@given(st.lists(st.sampled_from(["x = 1", "", "    y", "   "]), max_size=80))
def test_passages_have_every_line_that_is_not_blank_once(lines: list[str]) -> None:
    spans = list(split_passages(lines))
    rows = [row for first, last in spans for row in range(first, last)]
    assert len(rows) == len(set(rows))
    assert {row for row, line in enumerate(lines) if line.strip()} <= set(rows)
    assert all(last - first <= module.MAX_PASSAGE_LINES for first, last in spans)


def test_names_are_those_of_functions_methods_types_and_constants() -> None:
    text = "LIMIT = 3\nclass Order:\n    async def load(self): ...\nfn price(a) {}\nexport function tax() {}\n"
    assert find_definitions(text) == ("LIMIT", "Order", "load", "price", "tax")


# Passages search_paths by their words, in an index that changes.

WORDS = st.frozensets(st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]), min_size=1)


def test_the_passage_that_shares_the_rarest_words_comes_first() -> None:
    index = Postings()
    numbers = [
        index.add(split_words(text)) for text in ("load the order", "load the parcel", "store the order of a day")
    ]
    assert [number for number, _score in index.search(split_words("load an order"), 3)] == [
        numbers[0],
        numbers[1],
        numbers[2],
    ]


def test_a_short_passage_beats_a_long_one_with_the_same_words() -> None:
    index = Postings()
    long = index.add(split_words("parcel a bb cc dd ee ff gg hh ii jj kk ll mm nn oo"))
    short = index.add(split_words("parcel bb"))
    assert [number for number, _score in index.search(["parcel"], 2)] == [short, long]


def test_a_word_that_many_passages_have_finds_none() -> None:
    index = Postings()
    for number in range(SMALL_INDEX_PASSAGES * 20):
        index.add({"self", f"w{number}"})
    assert index.search(["self"], 5) == []
    assert [number for number, _score in index.search(["self", "w7"], 5)] == [7]


def test_nothing_is_found_where_nothing_is_shared_or_there() -> None:
    index = Postings()
    assert index.search(["a"], 3) == []
    index.remove(index.add({"aa"}))
    assert index.search(["aa"], 3) == []
    assert len(index) == 0


def test_identifiers_fall_apart_at_underscores_and_capitals_do_not_count() -> None:
    assert split_words("Load_order(x1, größe)") == {"load", "order", "größe"}


@given(st.lists(st.tuples(WORDS, st.booleans()), min_size=1, max_size=40), WORDS)
def test_an_index_that_lost_passages_answers_like_one_that_never_had_them(
    passages: list[tuple[frozenset[str], bool]], query: frozenset[str]
) -> None:
    changed, fresh = Postings(), Postings()
    numbers = [changed.add(passage) for passage, _stays in passages]
    for number, (_passage, stays) in zip(numbers, passages, strict=True):
        if not stays:
            changed.remove(number)
            changed.remove(number)
    kept = [number for number, (_passage, stays) in zip(numbers, passages, strict=True) if stays]
    for passage, stays in passages:
        if stays:
            fresh.add(passage)
    wanted = [(kept[number], score) for number, score in fresh.search(query, 50)]
    assert changed.search(query, 50) == wanted
    moved = changed.compact()
    assert list(moved) == kept
    assert changed.search(query, 50) == fresh.search(query, 50)
    assert len(changed) == len(fresh) == len(kept)
