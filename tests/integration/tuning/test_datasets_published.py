"""The published data sets themselves: sizes, parts kept apart, licences, and the original folders of APPS."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.data.datasets import apps, catalogue
from peft_tuning.data.datasets.apps import InputForm, read_problems
from peft_tuning.data.datasets.rows import parses
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import DataSet, IntentExample, question
from support.shared_data import shared_data


@pytest.fixture
def places(tmp_path: Path) -> DataLocations:
    return DataLocations(cache=tmp_path / "cache", environment=shared_data(), offline=True)


@pytest.fixture(scope="module")
def alpaca() -> DataSet:
    """CodeAlpacaPy, which takes the best part of a second to parse."""
    return catalogue.load(
        "codealpacapy", DataLocations(cache=Path("/nowhere"), environment=shared_data(), offline=True)
    )


def sizes(found: DataSet) -> tuple[int, int, int]:
    return len(found.train), len(found.validation), len(found.test)


def questions(*parts: tuple[object, ...]) -> set[str]:
    return {question(example) for part in parts for example in part}  # type: ignore[arg-type]


def test_conala_is_the_published_split_untouched(places: DataLocations) -> None:
    found = catalogue.load("conala", places)
    assert sizes(found) == (2135, 201, 543)
    assert found.dropped == {}
    assert not questions(found.train) & questions(found.validation, found.test)
    assert "validation and test: 27" in found.provenance
    assert "train and the two: 0" in found.provenance
    assert (found.prompt_tokens, found.response_tokens) == (64, 64)
    raw = json.loads(shared_data("conala_docprompting", "cmd_test.oracle_man.full.json").read_bytes())
    assert [(e.intent, e.code) for e in found.test if isinstance(e, IntentExample)] == [
        (row["nl"], row["cmd"]) for row in raw
    ]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Conala in a folder that may be changed."""
    folder = tmp_path / "mine/conala"
    folder.mkdir(parents=True)
    for file in shared_data("conala_docprompting").glob("*.json"):
        shutil.copyfile(file, folder / file.name)
    return folder


def test_conala_of_another_size_is_refused(copied: Path, tmp_path: Path) -> None:
    dev = copied / "cmd_dev.oracle_man.full.json"
    dev.write_text(json.dumps(json.loads(dev.read_bytes())[:-1]))
    with pytest.raises(InvalidInput, match="has 200 rows: the published validation part has 201"):
        catalogue.load("conala", DataLocations(cache=tmp_path / "cache", data=copied))


def test_a_held_out_sentence_is_dropped_from_train(copied: Path, tmp_path: Path) -> None:
    train, test = (copied / f"cmd_{split}.oracle_man.full.json" for split in ("train", "test"))
    rows = json.loads(train.read_bytes())
    sentence = json.loads(test.read_bytes())[5]["nl"]
    rows[7]["nl"] = f" {sentence}\n"
    train.write_text(json.dumps(rows))
    (tmp_path / "mine/codealpacapy").mkdir()
    answers = [{"instruction": text, "input": "", "output": "x = 1"} for text in (sentence, "something else")]
    (tmp_path / "mine/codealpacapy/code_alpaca_20k.json").write_text(json.dumps(answers))
    places = DataLocations(cache=tmp_path / "cache", data=tmp_path / "mine")
    assert catalogue.load("conala", places).dropped == {"also in validation or test": 1}
    found = catalogue.load("joint", places)
    assert sizes(found) == (2134 + 1, 201, 543)
    assert found.dropped == {"conala: also in validation or test": 1, "held out in the other data set": 1}


def test_codealpacapy_has_the_studys_sizes_and_says_what_it_left_out(alpaca: DataSet) -> None:
    found = alpaca
    assert sizes(found) == (2192, 314, 628)
    assert sum(sizes(found)) + sum(found.dropped.values()) == 20022
    assert found.dropped["has an input"] == 10258
    assert found.dropped["empty"] == 1
    # 6,628 under Python 3.11; another version may take a few rows more or less for Python.
    assert abs(found.dropped["does not parse as Python"] - 6628) < 10
    assert all(parses(example.code) for example in found.test if isinstance(example, IntentExample))
    assert "CC-BY-NC" in found.licence
    assert not questions(found.train) & questions(found.validation, found.test)
    assert not questions(found.validation) & questions(found.test)
    assert (found.prompt_tokens, found.response_tokens) == (64, 128)


def test_codealpacapy_does_not_depend_on_the_order_of_the_file(alpaca: DataSet, tmp_path: Path) -> None:
    with gzip.open(shared_data("codealpaca", "code_alpaca_20k.merged.json.gz")) as file:
        rows = json.load(file)
    random.Random(1).shuffle(rows)
    shuffled = tmp_path / "any-name.json"
    shuffled.write_text(json.dumps(rows))
    assert (
        catalogue.load("codealpacapy", DataLocations(cache=tmp_path / "cache", data=shuffled)).digest == alpaca.digest
    )


def test_of_fewer_rows_each_part_gets_its_share_and_the_seed_chooses(tmp_path: Path) -> None:
    rows = [{"instruction": f"Add {n}.", "input": "", "output": f"x += {n}"} for n in range(100)]
    (tmp_path / "few.json").write_text(json.dumps(rows))
    places = DataLocations(cache=tmp_path, data=tmp_path / "few.json")
    found, other = (catalogue.load("codealpacapy", places, seed=seed) for seed in (42, 1))
    assert sizes(found) == sizes(other) == (70, 10, 20)
    assert found.digest != other.digest


def test_joint_keeps_both_splits_and_both_licences(places: DataLocations) -> None:
    found = catalogue.load("joint", places)
    assert sizes(found) == (4327, 515, 1171)
    assert not questions(found.train) & questions(found.validation, found.test)
    assert "CC-BY-NC" in found.licence
    assert "CC-BY-SA" in found.licence
    assert (found.prompt_tokens, found.response_tokens) == (64, 128)
    assert found.train[0].id.startswith("conala/train/")
    assert found.train[-1].id.startswith("codealpacapy/")


def test_apps_in_its_original_folders(tmp_path: Path) -> None:
    given = DataLocations(cache=tmp_path, data=shared_data("apps_subset", "train_5"), offline=True)
    found = catalogue.load("apps", given)
    assert sizes(found) == (4, 1, 0)
    problems = {problem.id: problem for problem in read_problems(shared_data("apps_subset", "train_5"))}
    assert sorted(problems) == ["0001", "0111", "2287", "2404", "4184"]
    assert {e.id.rpartition("/")[2] for e in (*found.train, *found.validation)} == set(problems)
    assert problems["0001"].tests is not None
    assert problems["0001"].tests.form is InputForm.STDIN
    assert problems["2404"].tests is not None
    assert problems["2404"].tests.function == "findKthPositive"
    assert problems["2404"].tests.inputs == ([[2, 3, 4, 7, 11], 5],)
    assert problems["2404"].prompt.endswith(
        "The code needs to use the provided function signature.\n\n"
        "class Solution:\n    def findKthPositive(self, arr: List[int], k: int) -> int:\n        "
    )
    assert problems["0001"].prompt.endswith("The code needs to read from and write to standard IO.")
    assert all(problem.solutions for problem in problems.values())


def test_apps_with_tests_but_without_solutions(tmp_path: Path) -> None:
    path = shared_data("apps_subset", "test_selected150", "selected150.jsonl")
    found = catalogue.load("apps", DataLocations(cache=tmp_path, data=path))
    assert sizes(found) == (0, 0, 150)
    problems = list(read_problems(path))
    tests = [problem.tests for problem in problems if problem.tests]
    assert len(tests) == 150
    assert sum(len(test.inputs) for test in tests) == 1842
    assert sum(test.form is InputForm.LINES for test in tests) == 98
    assert {problem.tests.function is None for problem in problems if problem.tests and not problem.starter_code} == {
        True
    }
    counts = [sum(problem.difficulty == difficulty for problem in problems) for difficulty in apps.DIFFICULTIES]
    assert counts == [50, 52, 48]


def test_apps_as_the_hub_has_it_equals_the_folders(tmp_path: Path) -> None:
    """The same five problems, written as ``codeparrot/apps`` rows."""
    folder = shared_data("apps_subset", "train_5")
    rows = []
    for source in sorted(folder.iterdir()):
        starter = source / "starter_code.py"
        rows.append(
            {
                "id": int(source.name),
                "question": (source / "question.txt").read_text(),
                "solutions": (source / "solutions.json").read_text(),
                "input_output": (source / "input_output.json").read_text(),
                "starter_code": starter.read_text() if starter.exists() else "",
                **json.loads((source / "metadata.json").read_text()),
            }
        )
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from_rows, from_folders = list(read_problems(tmp_path / "train.jsonl")), list(read_problems(folder))
    assert [(p.prompt, p.solutions, p.tests, p.url) for p in from_rows] == [
        (p.prompt, p.solutions, p.tests, p.url) for p in from_folders
    ]


def test_a_file_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    origin = shared_data("codealpaca", "ORIGIN.md")
    with pytest.raises(InvalidInput, match=r"ORIGIN\.md"):
        catalogue.load("codealpacapy", DataLocations(cache=tmp_path, data=origin))
    with pytest.raises(NotFound, match="does not contain the files"):
        catalogue.load("conala", DataLocations(cache=tmp_path, data=origin))


def test_local_files_need_nothing_of_the_tune_extra() -> None:
    code = (
        "import sys; from pathlib import Path; from peft_tuning.data.datasets import catalogue; "
        "from peft_tuning.data.datasets.sources import DataLocations; "
        "catalogue.load('joint', DataLocations(cache=Path('/nowhere'), environment=Path(sys.argv[1]), offline=True)); "
        "print(sorted({'torch', 'transformers', 'datasets', 'pyarrow', 'huggingface_hub', 'httpx'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code, shared_data()], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
