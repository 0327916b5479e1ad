"""A data set from a repository: what is in it, what is not, and that it is the same every time."""

from __future__ import annotations

import random
import string
from collections import Counter
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
    IntentExample,
    Split,
    newest_first,
    split_files,
)
from peft_tuning.data.repository.dataset import (
    MAX_PREFIX_CHARS,
    MAX_SUFFIX_CHARS,
    DataMix,
    folders_data_set,
    repository_data_set,
    window,
)
from peft_tuning.data.repository.filters import function_parts
from peft_tuning.data.repository.holes import Hole, HoleSettings
from peft_tuning.events import Loading
from support.own_repository import OwnRepository, module

DENSE = DataMix(holes=HoleSettings(lines_per_hole=2), context_share=1.0)


def shop(root: Path) -> OwnRepository:
    """Twenty modules, the last five of them changed one after the other."""
    own = OwnRepository(root / "shop")
    for number in range(20):
        own.write(f"app/m{number}.py", module(number))
    own.commit({}, when=1_600_000_000)
    for number in range(15, 20):
        own.commit({f"app/m{number}.py": module(number) + "\n"}, when=1_700_000_000 + number)
    return own


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    """A repository to change."""
    return shop(tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> OwnRepository:
    """A repository to look at."""
    return shop(tmp_path_factory.mktemp("still"))


@pytest.fixture(scope="module")
def plain(still: OwnRepository) -> DataSet:
    """Its data set, as it comes."""
    return repository_data_set(still.root)


@pytest.fixture(scope="module")
def dense(still: OwnRepository) -> DataSet:
    """Its data set with many holes."""
    return repository_data_set(still.root, mix=DENSE)


def parts(data: DataSet) -> tuple[tuple[Example, ...], ...]:
    return data.train, data.validation, data.test


def files(examples: tuple[Example, ...]) -> set[str]:
    return {each.id.split(":")[0] for each in examples}


def test_the_data_set_says_what_it_is(own: OwnRepository) -> None:
    own.commit({"LICENSE": "Apache License\nVersion 2.0, January 2004\n", "notes.md": "x\n"}, when=1_800_000_000)
    data = repository_data_set(own.root)
    assert (data.name, data.licence) == ("shop", "Apache-2.0")
    assert own.git("rev-parse", "HEAD")[:12] in data.provenance
    assert data.dropped["file: not code"] == 2
    assert min(map(len, parts(data))) > 0


def test_the_files_changed_last_are_held_out_and_no_file_is_on_two_sides(plain: DataSet) -> None:
    train, validation, test = map(files, parts(plain))
    assert test == {"app/m19.py", "app/m18.py"}
    assert validation == {"app/m17.py", "app/m16.py"}
    assert train.isdisjoint(test | validation)
    assert len({each.id for part in parts(plain) for each in part}) == sum(map(len, parts(plain)))


def test_the_same_files_and_seed_give_the_same_data_set(still: OwnRepository, plain: DataSet) -> None:
    assert repository_data_set(still.root, seed=42) == plain
    assert repository_data_set(still.root, seed=2).digest != plain.digest


def test_every_fill_is_a_piece_of_its_file(still: OwnRepository, dense: DataSet) -> None:
    for each in (*dense.train, *dense.validation, *dense.test):
        if isinstance(each, FillExample):
            text = (still.root / each.path).read_text()
            assert each.prefix + each.middle + each.suffix == text


def test_both_kinds_of_example_are_there(still: OwnRepository, dense: DataSet) -> None:
    intents = [each for each in dense.train if isinstance(each, IntentExample)]
    fills = [each for each in dense.train if isinstance(each, FillExample)]
    assert intents[0].intent.startswith("Decide how to ")
    assert intents[0].code.startswith("def ")
    assert '"""' not in intents[0].code
    assert 0.05 <= len(intents) / len(dense.train) <= 0.15
    assert {each.kind for each in fills} == set(HoleKind)
    assert any(each.prefix.endswith('of a day."""\n    ') for each in fills)  # a docstring is answered in its file
    assert any(each.prefix.split("\n")[-2].strip().startswith("# collect") for each in fills)
    assert not any(
        isinstance(e, IntentExample) for e in repository_data_set(still.root, mix=DataMix(intent_share=0)).train
    )


def test_a_function_copied_to_another_file_is_on_one_side_only(own: OwnRepository) -> None:
    # The newest file holds a copy, with other comments, of a function of the oldest.
    copied = module(0).split("\n\n\n")[1].replace("# collect", "# gather all that")
    own.commit({"app/m19.py": module(19) + "\n\n" + copied}, when=1_800_000_000)
    data = repository_data_set(own.root, mix=DENSE)
    assert data.dropped["function: near-duplicate"] == 1
    name = copied.split("(")[0].split()[-1]
    start = module(0).index(f"def {name}")
    end = module(0).find("\ndef ", start + 1)
    for each in data.train:
        if isinstance(each, FillExample) and each.path == "app/m0.py":
            assert not start <= len(each.prefix) < end
        if isinstance(each, IntentExample):
            assert f"def {name}(" not in each.code
    assert any(isinstance(e, FillExample) and name in e.prefix[-600:] for e in data.test)


def test_no_answer_is_on_two_sides(own: OwnRepository) -> None:
    line = "result_of_it = some_helper(first_argument, second_argument, third_one)\n"
    for number in range(20):
        own.commit({f"app/m{number}.py": module(number) + line}, when=1_700_000_000 + number)
    data = repository_data_set(own.root, mix=DENSE)
    long = [{e.middle for e in part if isinstance(e, FillExample) and len(e.middle) > 60} for part in parts(data)]
    assert long[0].isdisjoint(long[1] | long[2])
    assert long[1].isdisjoint(long[2])


def test_a_copy_of_a_file_is_left_out(own: OwnRepository) -> None:
    own.commit({"app/copy.py": module(3).replace("parcels3", "parcels3", 1) + "# end\n"}, when=1_500_000_000)
    data = repository_data_set(own.root)
    assert data.dropped["file: near-duplicate"] == 1


def test_no_secret_is_in_any_part_of_any_example(own: OwnRepository) -> None:
    letters = string.ascii_letters + string.digits
    secret = "".join(random.Random(5).choices(letters, k=40))
    lines = module(2).split("\n")
    lines.insert(8, f'    blob_key = "{secret}"')
    imports = "".join(f"from app import m{n}\n" for n in (2, 4))
    own.commit(
        {"app/m2.py": f'API_BLOB = "{secret}"\n' + "\n".join(lines), "app/m5.py": imports + module(5)},
        when=1_500_000_000,
    )
    data = repository_data_set(own.root, mix=DENSE)
    assert data.dropped["line: secret"] == 2
    assert files(data.train) >= {"app/m2.py", "app/m5.py"}
    for part in parts(data):
        for each in part:
            shown = (
                (each.prefix, each.middle, each.suffix, *(chunk.text for chunk in each.context))
                if isinstance(each, FillExample)
                else (each.intent, each.code)
            )
            assert not any(secret in text for text in shown)
            assert "blob_key" not in shown[0]
    # Nor is a function learned from in which a line is missing.
    name = lines[5].split("(")[0].split()[-1]
    bodies = [e for e in data.train if isinstance(e, FillExample) and e.path == "app/m2.py" and e.kind is HoleKind.BODY]
    assert bodies
    assert not any(e.prefix.split("def ")[-1].startswith(name) for e in bodies)


def test_training_sees_no_held_out_file_as_context(own: OwnRepository) -> None:
    for number in range(20):
        imports = "".join(f"from app import m{n}\n" for n in (19, 18, 17, 16, 3, 4) if n != number)
        own.commit({f"app/m{number}.py": imports + module(number)}, when=1_700_000_000 + number)
    data = repository_data_set(own.root, mix=DENSE)
    train, validation, _test = map(files, parts(data))

    def shown(examples: tuple[Example, ...]) -> set[str]:
        return {chunk.path for each in examples if isinstance(each, FillExample) for chunk in each.context}

    assert shown(data.train) <= train
    assert shown(data.train)
    assert shown(data.validation) <= train | validation
    assert shown(data.test) & validation


def test_context_comes_with_about_half_of_the_holes(plain: DataSet) -> None:
    fills = [each for each in plain.train if isinstance(each, FillExample)]
    assert 0.3 < sum(bool(each.context) for each in fills) / len(fills) < 0.7


def test_a_number_of_examples_is_kept_to_and_the_rest_counted(still: OwnRepository, plain: DataSet) -> None:
    data = repository_data_set(still.root, max_examples=40)
    assert sum(map(len, parts(data))) == 40
    assert (len(data.validation), len(data.test)) == (4, 4)
    assert data.dropped["example: more than asked for"] > len(plain.train) / 2
    with pytest.raises(InvalidInput, match="too few"):
        repository_data_set(still.root, max_examples=1)


def test_progress_is_told(still: OwnRepository) -> None:
    told: list[tuple[str, int, int]] = []
    repository_data_set(still.root, on_progress=lambda event: told.append((event.what, event.done, event.of)))
    assert [each for each in told if each[1] == each[2]] == [
        ("reading files", 20, 20),
        ("cutting test", 2, 2),
        ("cutting validation", 2, 2),
        ("cutting train", 16, 16),
    ]


def test_a_repository_without_commits_is_split_by_file(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "new")
    for number in range(10):
        own.write(f"m{number}.py", module(number))
    own.git("add", "--all")
    data = repository_data_set(own.root)
    assert min(map(len, parts(data))) > 0
    assert "no commit yet" in data.provenance
    assert data.licence == "own code"


def test_line_ends_tabs_and_form_feeds_are_kept_as_an_editor_has_them(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "dos")
    for number in range(6):
        text = "\x0c" + module(number).replace("    ", "\t").replace("\n", "\r\n")
        own.write(f"m{number}.py", b"\xef\xbb\xbf" + text.encode())
    own.commit({})
    for each in repository_data_set(own.root).train:
        if isinstance(each, FillExample):
            whole = each.prefix + each.middle + each.suffix
            assert "\r" not in whole
            assert "\ufeff" not in whole
            assert whole.startswith("\x0c")


@pytest.mark.parametrize("count", [0, 2])
def test_too_little_code_is_refused_with_what_was_left_out(tmp_path: Path, count: int) -> None:
    own = OwnRepository(tmp_path / "small")
    own.commit({"README.md": "x\n", **{f"m{n}.py": module(n) for n in range(count)}})
    with pytest.raises(InvalidInput, match=r"too little code in small: . usable files.*1 file: not code"):
        repository_data_set(own.root)


def test_a_file_that_changes_while_it_is_read_is_left_out(own: OwnRepository) -> None:
    def change(event: Loading) -> None:
        if event.what == "cutting test" and event.done == 0:
            own.write("app/m3.py", "changed = 1\n")

    data = repository_data_set(own.root, on_progress=change)
    assert "app/m3.py" not in files(data.train)
    assert data.dropped["example: its file changed meanwhile"] > 0


def test_plain_folders_need_no_git(tmp_path: Path) -> None:
    for number in range(8):
        file = tmp_path / ("lib" if number < 5 else "more") / f"m{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(module(number))
    roots = [(tmp_path / "lib", "PSF-2.0"), (tmp_path / "more", "MIT")]
    data = folders_data_set(roots, name="corpus", ignore=["m4.py"])
    assert (data.name, data.licence) == ("corpus", "MIT AND PSF-2.0")
    assert "lib (PSF-2.0); more (MIT)" in data.provenance
    assert files(data.train + data.validation + data.test) == {
        *(f"lib/m{n}.py" for n in range(4)),
        *(f"more/m{n}.py" for n in range(5, 8)),
    }


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
