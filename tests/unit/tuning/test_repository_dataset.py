"""A data set from plain folders: what is in it, what is not, and that it is the same every time."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput
from peft_daemon.completion.prompt import TYPED_LINES
from peft_tuning.data.examples import (
    MAX_SPLIT_OVERSHOOT,
    DataSet,
    Example,
    FillExample,
    HoleKind,
    Split,
    newest_first,
    split_files,
)
from peft_tuning.data.repository.dataset import (
    MAX_PREFIX_CHARS,
    MAX_SUFFIX_CHARS,
    DataMix,
    folders_data_set,
    window,
)
from peft_tuning.data.repository.filters import function_parts
from peft_tuning.data.repository.holes import Hole, HoleSettings
from peft_tuning.events import Loading
from support.own_repository import module

DENSE = DataMix(holes=HoleSettings(lines_per_hole=2), context_share=1.0)
FILES = 20


def shop(root: Path) -> Path:
    """Twenty modules in a folder without git."""
    write(root, {f"app/m{number}.py": module(number) for number in range(FILES)})
    return root


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with ``app`` in it, to change."""
    return shop(tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``app`` in it, to look at."""
    return shop(tmp_path_factory.mktemp("still"))


def data_of(root: Path, mix: DataMix | None = None, *, seed: int = 42) -> DataSet:
    return folders_data_set([(root / "app", "MIT")], mix=mix, seed=seed)


@pytest.fixture(scope="module")
def plain(still: Path) -> DataSet:
    """Its data set, as it comes."""
    return data_of(still)


@pytest.fixture(scope="module")
def dense(still: Path) -> DataSet:
    """Its data set with many holes."""
    return data_of(still, DENSE)


def fills(examples: Sequence[Example]) -> list[FillExample]:
    return [each for each in examples if isinstance(each, FillExample)]


def parts(data: DataSet) -> tuple[list[FillExample], ...]:
    return fills(data.train), fills(data.validation), fills(data.test)


def paths(examples: Sequence[Example]) -> set[str]:
    return {each.path for each in fills(examples)}


def test_plain_folders_need_no_git(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path, {f"{'lib' if number < 5 else 'more'}/m{number}.py": module(number)})
    write(tmp_path, {"lib/notes.md": "x\n"})
    roots = [(tmp_path / "lib", "PSF-2.0"), (tmp_path / "more", "MIT")]
    data = folders_data_set(roots, name="corpus", ignore=["m4.py"])
    assert (data.name, data.licence) == ("corpus", "MIT AND PSF-2.0")
    assert "lib (PSF-2.0); more (MIT)" in data.provenance
    assert data.dropped["file: not code"] == 1
    assert paths(data.train + data.validation + data.test) == {
        *(f"lib/m{n}.py" for n in range(4)),
        *(f"more/m{n}.py" for n in range(5, 8)),
    }


def test_whole_files_are_held_out_and_no_file_is_on_two_sides(plain: DataSet) -> None:
    train, validation, test = map(paths, parts(plain))
    assert (len(train), len(validation), len(test)) == (16, 2, 2)
    assert len(train | validation | test) == FILES
    assert len({each.id for part in parts(plain) for each in part}) == sum(map(len, parts(plain)))


def test_the_same_files_and_seed_give_the_same_data_set(still: Path, plain: DataSet) -> None:
    assert data_of(still) == plain
    other = data_of(still, seed=2)
    assert other.digest != plain.digest
    assert paths(other.test) != paths(plain.test)


def test_every_example_is_a_piece_of_its_file(still: Path, dense: DataSet) -> None:
    for each in (*dense.train, *dense.validation, *dense.test):
        assert isinstance(each, FillExample)
        assert each.prefix + each.middle + each.suffix == (still / each.path).read_text()
        assert not each.learn_all


def test_all_kinds_of_holes_are_there_and_some_are_described_above(dense: DataSet) -> None:
    train = fills(dense.train)
    assert {each.kind for each in train} == set(HoleKind) - {HoleKind.CALL}
    assert any(each.prefix.endswith('of a day."""\n    ') for each in train)
    assert any(each.prefix.split("\n")[-2].strip().startswith("# collect") for each in train)


def test_a_function_copied_to_another_file_is_on_one_side_only(own: Path) -> None:
    # Another file holds a copy, with other comments, of a function of the first.
    function = module(0).split("\n\n\n")[1]
    copied = function.replace("# collect", "# gather all that")
    texts = {"app/m0.py": module(0), "app/m19.py": module(19) + "\n\n" + copied}
    write(own, {"app/m19.py": texts["app/m19.py"]})
    data = data_of(own, DENSE)
    assert data.dropped["function: near-duplicate"] == 1
    starts = {path: text.index(function[: function.index(")")]) for path, text in texts.items()}
    asked = {
        each.path
        for part in parts(data)
        for each in part
        if each.path in starts and 0 <= len(each.prefix) - starts[each.path] < len(function)
    }
    assert len(asked) == 1


def test_no_answer_is_on_two_sides(own: Path) -> None:
    line = "result_of_it = some_helper(first_argument, second_argument, third_one)\n"
    write(own, {f"app/m{number}.py": module(number) + line for number in range(FILES)})
    lines = HoleSettings(shares={HoleKind.LINE: 1.0}, lines_per_hole=1, max_holes=100, whole_line_share=1.0)
    data = data_of(own, DataMix(holes=lines))
    assert data.dropped["example: same as one held out"] > 10
    assert any(each.middle == line.strip() for each in fills(data.test))
    long = [{each.middle for each in part if len(each.middle) > 60} for part in parts(data)]
    assert long[0].isdisjoint(long[1] | long[2])
    assert long[1].isdisjoint(long[2])


def test_a_copy_of_a_file_is_left_out(own: Path) -> None:
    write(own, {"app/copy.py": module(3) + "# end\n"})
    data = data_of(own)
    assert data.dropped["file: near-duplicate"] == 1
    assert len(paths((*data.train, *data.validation, *data.test)) & {"app/copy.py", "app/m3.py"}) == 1


def test_no_secret_is_in_any_part_of_any_example(own: Path) -> None:
    letters = string.ascii_letters + string.digits
    secret = "".join(random.Random(5).choices(letters, k=40))
    lines = module(2).split("\n")
    lines.insert(8, f'    blob_key = "{secret}"')
    imports = "".join(f"from app import m{n}\n" for n in (2, 4))
    write(own, {f"app/m{number}.py": imports + module(number) for number in range(FILES) if number not in {2, 4}})
    write(own, {"app/m2.py": f'API_BLOB = "{secret}"\n' + "\n".join(lines)})
    data = data_of(own, DENSE)
    assert data.dropped["line: secret"] == 2
    everything = [each for part in parts(data) for each in part]
    assert "app/m2.py" in paths(everything)
    assert "app/m2.py" in {chunk.path for each in everything for chunk in each.context}
    for each in everything:
        shown = (each.prefix, each.middle, each.suffix, *(chunk.text for chunk in each.context))
        assert not any(secret in text or "blob_key" in text for text in shown)
    # Nor is a function learned from in which a line is missing.
    name = lines[5].split("(")[0].split()[-1]
    bodies = [each for each in everything if each.path == "app/m2.py" and each.kind is HoleKind.BODY]
    assert bodies
    assert not any(each.prefix.split("def ")[-1].startswith(name) for each in bodies)


def test_training_sees_no_held_out_file_as_context(own: Path, dense: DataSet) -> None:
    train, validation, test = (sorted(paths(part)) for part in parts(dense))
    imported = [Path(path).stem for path in (*test, *validation, *train[:2])]
    for number in range(FILES):
        imports = "".join(f"from app import {name}\n" for name in imported if name != f"m{number}")
        write(own, {f"app/m{number}.py": imports + module(number)})
    data = data_of(own, DENSE)
    train, validation, _test = (sorted(paths(part)) for part in parts(data))

    def shown(examples: Sequence[Example]) -> set[str]:
        return {chunk.path for each in fills(examples) for chunk in each.context}

    assert shown(data.train)
    assert shown(data.train) <= set(train)
    assert shown(data.validation) <= {*train, *validation}
    assert shown(data.test) & set(validation)


def test_context_comes_with_about_a_quarter_of_the_holes(plain: DataSet) -> None:
    assert 0.1 < sum(bool(each.context) for each in fills(plain.train)) / len(plain.train) < 0.4


def test_a_number_of_examples_is_kept_to_and_the_rest_counted(still: Path, plain: DataSet) -> None:
    data = data_of(still, DataMix(max_examples=40))
    assert sum(map(len, parts(data))) == 40
    assert (len(data.validation), len(data.test)) == (4, 4)
    assert data.dropped["example: more than asked for"] > len(plain.train) / 2
    with pytest.raises(InvalidInput, match="too few"):
        data_of(still, DataMix(max_examples=1))


def test_a_small_folder_gives_as_many_examples_as_a_large_one_as_far_as_it_has_them(tmp_path: Path) -> None:
    for folder, count in {"large": 30, "small": 12, "tiny": 3}.items():
        write(tmp_path, {f"{folder}/{folder}{number}.py": module(number) for number in range(count)})
    roots = [(tmp_path / folder, "MIT") for folder in ("large", "small", "tiny")]
    data = folders_data_set(roots, mix=DataMix(max_examples=40))
    drawn = Counter(path.partition("/")[0] for each in parts(data) for path in (e.path for e in each))
    assert sum(drawn.values()) == 40
    assert abs(drawn["large"] - drawn["small"]) <= 4
    assert 0 < drawn["tiny"] < drawn["small"]


def test_progress_is_told(still: Path) -> None:
    told: list[tuple[str, int, int]] = []
    folders_data_set(
        [(still / "app", "MIT")], on_progress=lambda event: told.append((event.what, event.done, event.of))
    )
    assert [each for each in told if each[1] == each[2]] == [
        ("reading files", 20, 20),
        ("cutting test", 2, 2),
        ("cutting validation", 2, 2),
        ("cutting train", 16, 16),
    ]


def test_line_ends_tabs_and_form_feeds_are_kept_as_an_editor_has_them(tmp_path: Path) -> None:
    for number in range(6):
        text = "\x0c" + module(number).replace("    ", "\t").replace("\n", "\r\n")
        write(tmp_path, {f"app/m{number}.py": b"\xef\xbb\xbf" + text.encode()})
    for each in fills(data_of(tmp_path).train):
        whole = each.prefix + each.middle + each.suffix
        assert "\r" not in whole
        assert "\ufeff" not in whole
        assert whole.startswith("\x0c")
        assert "\t" in whole


@pytest.mark.parametrize("count", [0, 2])
def test_too_little_code_is_refused_with_what_was_left_out(tmp_path: Path, count: int) -> None:
    write(tmp_path, {"app/README.md": "x\n", **{f"app/m{n}.py": module(n) for n in range(count)}})
    with pytest.raises(InvalidInput, match=r"too little code in folders: . usable files.*1 file: not code"):
        data_of(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_left_out(own: Path, plain: DataSet) -> None:
    path = min(paths(plain.train))

    def change(event: Loading) -> None:
        if event.what == "cutting test" and event.done == 0:
            write(own, {path: "changed = 1\n"})

    data = folders_data_set([(own / "app", "MIT")], on_progress=change)
    assert path not in paths(data.train)
    assert data.dropped["example: its file changed meanwhile"] > 0


def test_a_window_keeps_what_a_prompt_needs_and_its_layout() -> None:
    text = "".join(f"line_{n} = {n}\n" for n in range(5_000))
    for start in (0, 500, MAX_PREFIX_CHARS + 1, 30_000, len(text) - 3):
        begin, end = window(text, Hole(HoleKind.LINE, start, start + 2))
        assert start - MAX_PREFIX_CHARS <= begin <= start
        assert begin == 0 or start - begin > MAX_PREFIX_CHARS * 0.9
        assert begin == 0 or text[begin - 1] == "\n"
        assert text.count("\n", 0, begin) % TYPED_LINES == 0
        assert end == len(text) or (text[end - 1] == "\n" and MAX_SUFFIX_CHARS <= end - start <= MAX_SUFFIX_CHARS + 100)


def test_a_window_of_a_file_with_one_long_line_is_cut_all_the_same() -> None:
    text = "x" * 50_000
    begin, end = window(text, Hole(HoleKind.LINE, 40_000, 40_002))
    assert (begin, end) == (40_000 - MAX_PREFIX_CHARS, 50_000)


def test_the_modules_of_this_test_are_unlike_each_other() -> None:
    sets = [set(function_parts(module(number))) for number in range(20)]
    assert max(len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[:i]) < 0.6


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
