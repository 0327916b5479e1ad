"""APPS: programming problems in three difficulties, each with solutions and tests.

Train is split 4,500 / 500 by seed, as the study did; test is the first 250 problems of each difficulty. One solution
per problem is trained on: the first that is Python 3. Problems with more than 1,024 tokens are dropped where tokens are
counted, not here. The pinned test file is 1.3 GB, nearly all of it tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from peft_tuning.datasets.apps_problems import DIFFICULTIES, QUESTION_FILE, Problem, read_problems
from peft_tuning.datasets.entry import Entry
from peft_tuning.datasets.hub import HubFile, HubRepository
from peft_tuning.datasets.parsing import parses
from peft_tuning.datasets.sources import Found, Part, Places, Wanted, find
from peft_tuning.datasets.splits import apart, hold_out, unrepeated
from peft_tuning.examples import DataSet, IntentExample

TEST_PER_DIFFICULTY = 250
VALIDATION_SHARE = 0.1
LICENCE = "MIT (problem texts belong to Codeforces, AtCoder, Codewars, Kattis and LeetCode)"
FIELDS = ("id", "question", "solutions", "input_output", "difficulty", "url", "starter_code")

WANTED = Wanted(
    id="apps",
    folders=("APPS",),
    parts={
        "train": Part(
            names=("train.jsonl", "train.jsonl.gz", "train.parquet", "train"),
            fields=FIELDS,
            hub=HubFile(
                file="train.jsonl",
                bytes=107_101_272,
                sha256="45e82ef22ed8e7c0c04d881a21b923e9dd233157896b0b8d5b3493e887499cae",
            ),
            required=False,
        ),
        "test": Part(
            names=("test.jsonl", "test.jsonl.gz", "test.parquet", "test", "selected150.jsonl"),
            fields=FIELDS,
            hub=HubFile(
                file="test.jsonl",
                bytes=1_292_436_853,
                sha256="5b003a65ac40feb47dd5eaec267a767a6fc435bdcfa68ff715fe869f948e760c",
            ),
            required=False,
        ),
    },
    repository=HubRepository(id="codeparrot/apps", commit="21e74ddf8de1a21436da12e3e653065c5213e9d1"),
    unnamed="train",
    marker=QUESTION_FILE,
)


def load(places: Places, seed: int) -> DataSet:
    """Whatever part is found: train and validation from one file, test from the other, or from one of them alone."""
    found = find(WANTED, places)
    dropped: Counter[str] = Counter()
    flawed: list[str] = []
    tests = _noting_flaws(test_problems(found), "test", flawed)
    test = [_example(problem, "test", problem.solutions) for problem in tests]
    problems = _noting_flaws(train_problems(found), "train", flawed)
    train = unrepeated(_trainable(problems, dropped), dropped)
    train = apart(train, test, dropped, "also in validation or test")
    validation, train = hold_out(train, VALIDATION_SHARE, seed)
    return DataSet(
        name="apps",
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        dropped=dict(dropped),
        licence=LICENCE,
        provenance=(
            f"APPS. {found.describe()}. Validation: a tenth of train, by sha256 of question and seed {seed}; test: the "
            f"first {TEST_PER_DIFFICULTY} problems of each difficulty; the first solution that is Python 3"
            + (f"; unusable tests: {', '.join(flawed)}" if flawed else "")
        ),
        prompt_tokens=1024,
        response_tokens=1024,
    )


def train_problems(found: Found) -> Iterator[Problem]:
    """The problems of the train file, in its order; none where it is not there."""
    return read_problems(found.files["train"]) if "train" in found.files else iter(())


def test_problems(found: Found) -> Iterator[Problem]:
    """The first problems of each difficulty of the test file, in its order, with their tests."""
    if "test" not in found.files:
        return
    counts = dict.fromkeys(DIFFICULTIES, TEST_PER_DIFFICULTY)
    for problem in read_problems(found.files["test"]):
        if counts[problem.difficulty] > 0:
            counts[problem.difficulty] -= 1
            yield problem
        if not any(counts.values()):
            return


def _noting_flaws(problems: Iterable[Problem], split: str, flawed: list[str]) -> Iterator[Problem]:
    for problem in problems:
        if problem.tests and problem.tests.flaw:
            flawed.append(f"{split}/{problem.id} ({problem.tests.flaw})")
        yield problem


def _trainable(problems: Iterable[Problem], dropped: Counter[str]) -> Iterator[IntentExample]:
    for problem in problems:
        if not problem.question.strip():
            dropped["empty"] += 1
        elif not problem.solutions:
            dropped["no solution"] += 1
        elif (solution := next(filter(parses, problem.solutions), None)) is None:
            dropped["no solution parses as Python"] += 1
        else:
            yield _example(problem, "train", (solution,))


def _example(problem: Problem, split: str, solutions: tuple[str, ...]) -> IntentExample:
    """The example of a problem; its code is empty where there is no solution, as for many test problems."""
    code = next(chain(solutions, ("",)))
    return IntentExample(id=f"apps/{split}/{problem.id}", intent=problem.prompt, code=code.strip("\n"))


ENTRY = Entry(
    id="apps",
    summary="programming problem to a whole program, with tests",
    licence=LICENCE,
    sizes={"train": 4500, "validation": 500, "test": TEST_PER_DIFFICULTY * len(DIFFICULTIES)},
    wanted=(WANTED,),
    load=load,
)
