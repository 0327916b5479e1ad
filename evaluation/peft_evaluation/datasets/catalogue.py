"""The data sets that can be evaluated on: a known one by name, a file of the user, or holes in a repository.

They are read by tuning's loaders with the same split, so no adapter was trained on their test part. Of APPS (Hendrycks
et al. 2021, arXiv 2105.09938) the first 250 problems of each difficulty are used, or a published selection of 150.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.datasets.function_tests import load_humaneval, load_mbpp
from peft_evaluation.sample import Sample, SampleSet
from peft_tuning.data.datasets import apps
from peft_tuning.data.datasets import catalogue as tuning
from peft_tuning.data.datasets.sources import SEED, DataLocations, find
from peft_tuning.data.examples import (
    CompletionExample,
    DataSet,
    EditExample,
    Example,
    FillExample,
    HoleKind,
    IntentExample,
)
from peft_tuning.data.repository.documents import ANSWER_TOKENS, learning_data_set
from peft_tuning.events import Loading

SampleLoader = Callable[[DataLocations, int], SampleSet]
OnLoading = Callable[[str, int, int], None]
"""Called with a description, the number of units done, and the number of all units (0: unknown)."""
APPS_ANSWER_TOKENS = 1024
POOL_DOCUMENTS = 2_000
"""Most documents of a repository to show examples of."""

NOTES = {
    "conala": (
        "Conala's development and test parts share 27 posts on Stack Overflow.",
        "On Conala, differences below 5 points have been found to be noise to human readers (arXiv 2208.03133).",
    ),
    "codealpacapy": ("The study's split is not public; this one is by a fixed seed, with the same sizes.",),
}


def load_tuning_data(name: str, locations: DataLocations, seed: int) -> SampleSet:
    """Load the test part of a data set of tuning or of a FILE.jsonl; raises InvalidInput if there is none."""
    data = tuning.load(name, locations, seed=seed)
    return sample_set(data, NOTES.get(name, ()))


def sample_set(data: DataSet, notes: tuple[str, ...] = ()) -> SampleSet:
    """Return the test part of ``data``; raises InvalidInput if it is empty."""
    test = _answerable(data.test)
    if not test:
        raise InvalidInput(
            f"{data.name} has no test part",
            why="an evaluation needs examples that no adapter was tuned on",
            fix="In a file of your own, give rows a `split` of test, or no row one; in a repository, commit more code",
        )
    return SampleSet(
        name=data.name,
        part="test",
        items=tuple(Sample(example=example, group=_group(example)) for example in test),
        pool=_answerable(data.train),
        max_tokens=data.response_tokens,
        licence=data.licence,
        provenance=data.provenance,
        notes=notes,
    )


def _answerable(examples: Sequence[Example]) -> tuple[CompletionExample, ...]:
    """Return what completion can be asked for; next edits have a benchmark of their own."""
    return tuple(each for each in examples if not isinstance(each, EditExample))


def _group(example: CompletionExample) -> str:
    return HoleKind(example.kind).value if isinstance(example, FillExample) else ""


def load_repository(repository: Path, seed: int, on_progress: OnLoading | None = None) -> SampleSet:
    """Load the holes that judge an adapter of the repository, in lines of its newest commits; see ``documents``.

    The pool is the code before these commits. Raises what ``learning_data_set`` raises.
    """

    def report(event: Loading) -> None:
        if on_progress is not None:
            on_progress(event.what, event.done, event.of)

    data = learning_data_set(repository, seed=seed, max_documents=POOL_DOCUMENTS, on_progress=report)
    return replace(sample_set(data), max_tokens=ANSWER_TOKENS, root=repository.resolve())


def load_apps(locations: DataLocations, seed: int) -> SampleSet:
    """Load the test problems; the training problems, if there are any, are the pool.

    Raises InvalidInput if the files have no test problem.
    """
    found = find(apps.FILES, locations)
    problems = list(apps.test_problems(found))
    if not problems:
        raise InvalidInput("the files of APPS contain no test problems", fix="Give the test file with `--data`")
    data = apps.load(locations, seed)
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
        pool=_answerable(data.train),
        max_tokens=APPS_ANSWER_TOKENS,
        licence=data.licence,
        provenance=data.provenance,
        notes=(f"{untested} problems come without usable tests and count as not passed.",) if untested else (),
    )


LOADERS: Mapping[str, SampleLoader] = {
    "conala": lambda locations, seed: load_tuning_data("conala", locations, seed),
    "codealpacapy": lambda locations, seed: load_tuning_data("codealpacapy", locations, seed),
    "apps": load_apps,
    "humaneval": lambda locations, _seed: load_humaneval(locations),
    "mbpp": lambda locations, _seed: load_mbpp(locations),
}
"""The loader of each data set. To add a data set, write a loader and add a line here."""


def load(name: str, locations: DataLocations, *, seed: int = SEED) -> SampleSet:
    """Load the data set called ``name``, or the file with that path, without repeated items.

    Raises NotFound for an unknown name, InvalidInput for different items with the same id, and what the loader raises.
    """
    if name not in LOADERS and tuning.is_own(name):
        return without_repetitions(load_tuning_data(name, locations, seed))
    if name not in LOADERS:
        raise NotFound(
            f"there is no data set '{name}' to evaluate on",
            why=f"there are {', '.join(LOADERS)}",
            fix="Or give the path of a FILE.jsonl or folder, OWNER/NAME of the hub, or `--repo FOLDER`",
        )
    return without_repetitions(LOADERS[name](locations, seed))


def without_repetitions(found: SampleSet) -> SampleSet:
    """Return the set without repeated items, which a note counts.

    Raises InvalidInput for two items with one id.
    """
    kept: dict[str, Sample] = {}
    for item in found.items:
        if kept.setdefault(item.id, item) != item:
            raise InvalidInput(
                f"{found.name} has two different items called {item.id}", fix="Give each item its own id in the file"
            )
    if not (repeated := len(found.items) - len(kept)):
        return found
    note = f"{repeated} of the {len(found.items)} items repeat another one and are asked once."
    return replace(found, items=tuple(kept.values()), notes=(*found.notes, note))
