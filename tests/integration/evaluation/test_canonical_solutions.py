"""The sandbox judges published solutions right: a false alarm there would be one for every answer."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peft_evaluation.datasets import function_tests
from peft_evaluation.datasets.function_tests import load_mbpp
from peft_evaluation.sample import Sample
from peft_evaluation.sandbox.base import SandboxOutcome
from peft_evaluation.sandbox.sandboxes import Bubblewrap
from peft_evaluation.verification import verify_one
from peft_tuning.data.datasets.apps import read_problems
from peft_tuning.data.datasets.sources import DataLocations
from peft_tuning.data.examples import IntentExample
from support.shared_data import shared_data


def outcomes(items: tuple[Sample, ...], texts: list[str]) -> dict[str, str]:
    """Of those that do not pass."""
    sandbox = Bubblewrap()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ran = list(pool.map(lambda item, text: verify_one(item, text, sandbox), items, texts))
    late = {each.item for each in ran if each.outcome is SandboxOutcome.TIMEOUT}
    again = [verify_one(item, text, sandbox) for item, text in zip(items, texts, strict=True) if item.id in late]
    final = {each.item: each for each in (*ran, *again)}
    return {
        name: f"{each.outcome}: {each.why}" for name, each in final.items() if each.outcome is not SandboxOutcome.PASSED
    }


@pytest.mark.long
def test_all_of_humaneval_pass_whole_and_as_bodies(tmp_path: Path) -> None:
    items = function_tests.load_humaneval(DataLocations(data=None, environment=shared_data(), cache=tmp_path)).items
    assert len(items) == 164
    assert outcomes(items, [item.reference for item in items]) == {}
    some = items[::8]
    bodies = [item.reference.partition(item.tests.stub)[2] for item in some if hasattr(item.tests, "stub")]
    assert len(bodies) == len(some) and all(bodies)
    assert outcomes(some, bodies) == {}


@pytest.mark.long
def test_all_of_mbpp_pass(tmp_path: Path) -> None:
    items = load_mbpp(DataLocations(data=None, environment=shared_data(), cache=tmp_path)).items
    assert len(items) == 257
    assert outcomes(items, [item.reference for item in items]) == {}


def compiles(code: str) -> bool:
    try:
        compile(code, "solution.py", "exec")
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize("folder", ["0001", "0111", "2287", "2404", "4184"])
def test_apps_solutions_pass_and_those_of_another_problem_do_not(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).symlink_to(shared_data("apps_subset/train_5", folder))
    (problem,) = read_problems(tmp_path)
    assert problem.tests is not None and problem.tests.inputs
    item = Sample(example=IntentExample(id=problem.id, intent=problem.prompt, code=""), tests=problem.tests)
    # The published file has solutions that are no Python: a bare "return" where the site had an exit.
    solutions = [each for each in problem.solutions if compiles(each)][:3]
    assert solutions
    assert outcomes((item,) * len(solutions), list(solutions)) == {}
    assert outcomes((item,), ["def solve():\n    pass\nprint(input())"]) != {}
