"""The data sets that can be evaluated on: by name, a file of the user's, or holes in a repository.

The loaders of tuning read the files, so no test sample has been trained on. APPS (Hendrycks et al. 2021,
arXiv 2105.09938) has the first 250 problems of each difficulty, or a published selection of 150.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.datasets.function_tests import load_humaneval, load_mbpp
from peft_evaluation.sample import Sample, SampleSet
from peft_tuning.data.datasets import apps
from peft_tuning.data.datasets import catalogue as tuning
from peft_tuning.data.datasets.sources import SEED, DataLocations, find
from peft_tuning.data.examples import DataSet, Example, FillExample, HoleKind, IntentExample
from peft_tuning.data.repository.dataset import repository_data_set
from peft_tuning.events import Loading
from peft_tuning.gate import ANSWER_TOKENS

SampleLoader = Callable[[DataLocations, int], SampleSet]
OnLoading = Callable[[str, int, int], None]
"""Called with a description, the number of units done, and the number of all units (0: unknown)."""
APPS_ANSWER_TOKENS = 1024

NOTES = {
    "conala": (
        "Conala's development and test parts share 27 posts on Stack Overflow.",
        "On Conala, differences below 5 points have been found to be noise to human readers (arXiv 2208.03133).",
    ),
    "codealpacapy": ("The study's split is not public; this one is by a fixed seed, with the same sizes.",),
}


def load_tuning_data(name: str, places: DataLocations, seed: int) -> SampleSet:
    """A data set of the tuning catalogue, or a FILE.jsonl; raises what that does, InvalidInput without a test."""
    data = tuning.load(name, places, seed=seed)
    return sample_set(data, NOTES.get(name, ()))


def sample_set(data: DataSet, notes: tuple[str, ...] = ()) -> SampleSet:
    """The test part of ``data``; raises InvalidInput when it is empty."""
    if not data.test:
        raise InvalidInput(
            f"{data.name} has no test part",
            why="an evaluation needs examples that nothing was tuned on",
            fix="In a FILE.jsonl, give rows a `split` of test; in a repository, commit more code",
        )
    return SampleSet(
        name=data.name,
        part="test",
        items=tuple(Sample(example=example, group=_group(example)) for example in data.test),
        pool=data.train,
        max_tokens=data.response_tokens,
        licence=data.licence,
        provenance=data.provenance,
        notes=notes,
    )


def _group(example: Example) -> str:
    return HoleKind(example.kind).value if isinstance(example, FillExample) else ""


def load_repository(repository: Path, seed: int, on_progress: OnLoading | None = None) -> SampleSet:
    """The test part of the repository's data set, as tuning cuts it; raises what ``repository_data_set`` raises.

    Sentences among its examples are left out: they are few, and scored by other metrics than holes.
    """

    def report(event: Loading) -> None:
        if on_progress is not None:
            on_progress(event.what, event.done, event.of)

    data = repository_data_set(repository, seed=seed, on_progress=report)
    holes = tuple(each for each in data.test if isinstance(each, FillExample))
    return replace(sample_set(replace(data, test=holes)), max_tokens=ANSWER_TOKENS, root=repository.resolve())


def load_apps(places: DataLocations, seed: int) -> SampleSet:
    """Problems with their tests; training problems, where there are any, are the pool. InvalidInput without a test."""
    found = find(apps.FILES, places)
    problems = list(apps.test_problems(found))
    if not problems:
        raise InvalidInput("the files of APPS hold no test problems", fix="Give the test file with `--data`")
    data = apps.load(places, seed)
    items = tuple(
        Sample(
            example=IntentExample(
                id=f"apps/test/{problem.id}",
                intent=problem.prompt,
                code=(problem.solutions[0] if problem.solutions else "").strip("\n"),
            ),
            group=problem.difficulty,
            tests=problem.tests,
        )
        for problem in problems
    )
    untested = sum(problem.tests is None or not problem.tests.inputs for problem in problems)
    return SampleSet(
        name="apps",
        part="test",
        items=items,
        pool=data.train,
        max_tokens=APPS_ANSWER_TOKENS,
        licence=data.licence,
        provenance=data.provenance,
        notes=(f"{untested} problems come without usable tests and count as not passed.",) if untested else (),
    )


LOADERS: Mapping[str, SampleLoader] = {
    "conala": lambda places, seed: load_tuning_data("conala", places, seed),
    "codealpacapy": lambda places, seed: load_tuning_data("codealpacapy", places, seed),
    "apps": load_apps,
    "humaneval": lambda places, _seed: load_humaneval(places),
    "mbpp": lambda places, _seed: load_mbpp(places),
}
"""A new data set is a loader and a line here."""


def load(name: str, places: DataLocations, *, seed: int = SEED) -> SampleSet:
    """The items called ``name``, or of the file of that path, each once.

    Raises NotFound, InvalidInput for two items of one id, and what the loader raises.
    """
    if tuning.is_file(name):
        return without_repetitions(load_tuning_data(name, places, seed))
    if name not in LOADERS:
        raise NotFound(
            f"there is no data set '{name}' to evaluate on",
            why=f"there are {', '.join(LOADERS)}",
            fix="Or give the path of a FILE.jsonl, or `--repo FOLDER`",
        )
    return without_repetitions(LOADERS[name](places, seed))


def without_repetitions(found: SampleSet) -> SampleSet:
    """The set without repetitions, which a note counts. Raises InvalidInput for different items of one id."""
    kept: dict[str, Sample] = {}
    for item in found.items:
        if kept.setdefault(item.id, item) != item:
            raise InvalidInput(
                f"{found.name} has two different items called {item.id}", fix="Give each an id of its own in the file"
            )
    if not (repeated := len(found.items) - len(kept)):
        return found
    note = f"{repeated} of the {len(found.items)} items repeat another one and are asked once."
    return replace(found, items=tuple(kept.values()), notes=(*found.notes, note))
