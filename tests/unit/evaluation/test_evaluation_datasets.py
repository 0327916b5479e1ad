"""The items of every data set: as published, tested by what was published with them, and never tuned on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.datasets import catalogue
from peft_evaluation.datasets.catalogue import load_repository
from peft_evaluation.sample import FunctionTests, SampleSet, groups
from peft_tuning.data.datasets.apps import ProblemTests
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import FillExample
from peft_tuning.data.repository.documents import learning_data_set
from support.own_repository import OwnRepository, module
from support.shared_data import shared_data


def load(name: str, *folders: str) -> SampleSet:
    data = shared_data(*folders) if folders else None
    locations = DataLocations(cache=Path("/none"), environment=shared_data(), offline=True, data=data)
    return catalogue.load(name, locations)


@pytest.mark.parametrize(("name", "items", "pool"), [("conala", 543, 2135), ("codealpacapy", 628, 2192)])
def test_the_study_s_data_sets_have_its_sizes_and_no_item_in_the_pool(name: str, items: int, pool: int) -> None:
    found = load(name)
    assert (len(found.items), len(found.pool)) == (items, pool)
    assert not {item.id for item in found.items} & {example.id for example in found.pool}
    assert all(item.question and item.reference for item in found.items)
    assert found.licence and found.provenance and found.notes


def test_humaneval_is_164_functions_whose_parts_make_up_the_prompt() -> None:
    found = load("humaneval")
    assert len(found.items) == 164
    for item in found.items:
        assert isinstance(item.tests, FunctionTests)
        assert item.reference.startswith(item.tests.preamble + item.tests.stub)
        assert item.tests.stub.startswith(f"def {item.tests.entry_point}(")
        assert "def check(candidate)" in item.tests.check


@pytest.mark.parametrize(("file", "count"), [("sanitized-mbpp.json", 257), ("mbpp.jsonl", 500)])
def test_mbpp_is_the_paper_s_test_part_and_the_function_tested_is_found(file: str, count: int) -> None:
    found = load("mbpp", "mbpp", file)
    assert len(found.items) == count
    assert all(11 <= int(item.id.removeprefix("mbpp/")) <= 510 for item in found.items)
    for item in found.items:
        assert isinstance(item.tests, FunctionTests)
        name = item.tests.entry_point
        assert f"{name}(" in item.reference.replace(" (", "(") and f"{name}(" in item.question.replace(" (", "(")
        compile(item.tests.check, "check", "exec")


def test_apps_has_its_difficulties_and_its_tests() -> None:
    found = load("apps", "apps_subset", "test_selected150")
    # The file has 150 rows.
    assert len(found.items) == len({item.id for item in found.items}) == 128
    assert found.notes == ("22 of the 150 items repeat another one and are asked once.",)
    assert set(groups(found.items)) == {"introductory", "interview", "competition"}
    assert all(isinstance(item.tests, ProblemTests) and item.tests.inputs for item in found.items)


def test_two_items_of_one_id_are_refused() -> None:
    found = load("humaneval")
    assert catalogue.without_repetitions(found) is found
    other = replace(found.items[1], example=replace(found.items[1].example, id=found.items[0].id))
    with pytest.raises(InvalidInput, match="two different items called"):
        catalogue.without_repetitions(replace(found, items=(found.items[0], other)))


def test_a_file_of_one_s_own_is_evaluated_on_its_test_part(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    splits = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    rows = [{"intent": f"say {i}", "code": f"print({i})", "split": split} for i, split in enumerate(splits)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = catalogue.load(str(path), DataLocations(cache=tmp_path))
    assert [item.reference for item in found.items] == ["print(8)", "print(9)"]
    assert len(found.pool) == 6
    path.write_text("\n".join(json.dumps({**row, "split": "train"}) for row in rows))
    with pytest.raises(InvalidInput, match="no test part"):
        catalogue.load(str(path), DataLocations(cache=tmp_path))


def test_the_digest_follows_the_items_and_the_first_are_named_as_such() -> None:
    found = load("humaneval")
    few = found.first(10)
    assert (len(few.items), few.part) == (10, "first 10 of test")
    assert few.digest != found.digest == load("humaneval").digest
    assert found.first(1000) is found


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="conala, codealpacapy, apps, humaneval, mbpp"):
        load("humaneval+")


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_a_missing_file_is_refused_with_where_to_put_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--data"):
        catalogue.load(name, DataLocations(cache=tmp_path, offline=True))


def test_a_file_with_too_few_problems_is_refused(tmp_path: Path) -> None:
    (tmp_path / "HumanEval.jsonl").write_text(
        '{"task_id": "a", "prompt": "def f():\\n", "entry_point": "f", "canonical_solution": "", "test": ""}\n'
    )
    with pytest.raises(InvalidInput, match="has 1 problems"):
        catalogue.load("humaneval", DataLocations(cache=tmp_path, data=tmp_path / "HumanEval.jsonl"))


def test_a_repository_is_evaluated_on_the_holes_that_tuning_holds_out(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "shop")
    for number in range(20):
        own.commit({f"app/m{number}.py": module(number)}, when=1_700_000_000 + number)
    found = load_repository(own.root, seed=42)
    tuned = learning_data_set(own.root, seed=42, max_documents=500)
    assert {item.id for item in found.items} == {each.id for each in tuned.test if isinstance(each, FillExample)}
    assert found.pool == tuned.train
    assert set(groups(found.items)) <= {"token", "line", "block"}
    item = found.items[0]
    assert isinstance(item.example, FillExample)
    assert "⟨…⟩" in item.question and item.reference == item.example.middle
