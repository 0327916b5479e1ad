"""Accepted suggestions of the feedback as examples: those of files that may be learned from, without secrets.

The rules are those for a repository's own code: in a git work tree only files that git tracks, that no rule of
``.gitignore`` or ``.peft-daemon.toml`` names, and that are not vendored or generated. Elsewhere only
``.peft-daemon.toml`` excludes files. A suggestion that holds a secret is left out; a line around it that holds one is
emptied.

What was accepted and left as it was counts most, then what was edited afterwards, of which the edited text is learned.
A rejected suggestion is never an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from detect_secrets.plugins.base import BasePlugin

from peft_core.api_types import Outcome
from peft_core.code import git
from peft_core.code.work_trees import main_folder
from peft_core.errors import PeftDaemonError
from peft_daemon.feedback import FeedbackRow
from peft_tuning.data.examples import FillExample, HoleKind
from peft_tuning.data.repository.files import ignore_rules, repository_files
from peft_tuning.data.repository.filters import detectors, without_secrets

KEPT_WEIGHT, EDITED_WEIGHT, TYPED_WEIGHT = 2.0, 1.5, 1.0
"""Weights of suggestions that were accepted and kept, accepted and then edited, and typed by hand as they were."""


@dataclass(frozen=True)
class AcceptedSuggestion:
    """An accepted suggestion, with the text that was in its place later (``middle``)."""

    id: str
    path: str | None
    """Absolute path of the document; None if it was never saved."""
    repository: str | None
    """The git work tree that contains it."""
    language: str
    prefix: str
    middle: str
    suffix: str
    weight: float = 1.0


@dataclass(frozen=True)
class LearnableExamples:
    """The examples, and how many suggestions were left out, by reason."""

    examples: tuple[FillExample, ...]
    dropped: Mapping[str, int]


def accepted_suggestions(rows: Iterable[FeedbackRow]) -> Iterator[AcceptedSuggestion]:
    """Yield the completions that were wanted and whose text may be used, as they were when looked at again."""
    for row in rows:
        record, weight = row.record, _weight(row)
        if row.has_text and weight and not record.next_edit:
            yield AcceptedSuggestion(
                id=f"feedback/{row.id}",
                path=record.path,
                repository=row.repository,
                language=record.language,
                prefix=record.prefix,
                middle=record.now or "",
                suffix=record.suffix[record.replaced :],
                weight=weight,
            )


def accepted_in(rows: Iterable[FeedbackRow], root: Path) -> tuple[FillExample, ...]:
    """Return what was accepted in a repository before its newest commit, the newest first.

    What came later waits for the next commit, so that an interrupted run finds the same examples when it goes on.
    """
    commit = git.head_commit(root)
    if not commit:
        return ()
    until, main = git.committed_at(root, commit), main_folder(root.resolve())
    ours = cache(lambda repository: main_folder(Path(repository)) == main)
    found = [row for row in rows if row.time <= until and row.repository and ours(row.repository)]
    return learnable_examples(accepted_suggestions(found)).examples[::-1]


def _weight(row: FeedbackRow) -> float:
    """Return how much a suggestion counts; 0: it was not wanted, or nothing of it was still there later."""
    record = row.record
    if not record.kept:
        return 0.0
    if record.outcome is Outcome.ACCEPTED:
        return KEPT_WEIGHT if record.kept >= record.stood else EDITED_WEIGHT
    return TYPED_WEIGHT if record.outcome is Outcome.TYPED else 0.0


def learnable_examples(suggestions: Iterable[AcceptedSuggestion]) -> LearnableExamples:
    """Make an example of each suggestion that may be learned from, in order."""
    listed = cache(_listed)
    examples: list[FillExample] = []
    dropped: Counter[str] = Counter()
    with detectors() as plugins:
        for suggestion in suggestions:
            path = _path(suggestion, listed(suggestion.repository) if suggestion.repository else None)
            if path is None:
                dropped["of a file that is not learned from"] += 1
            elif not suggestion.middle.strip():
                dropped["nothing left of it"] += 1
            elif (clean := _without_secrets(suggestion, path, plugins)) is None:
                dropped["holds a secret"] += 1
            else:
                examples.append(_example(clean, path))
    return LearnableExamples(tuple(examples), dict(dropped))


def _listed(repository: str) -> frozenset[str]:
    """Return the paths of a repository's files that may be learned from; none if it cannot be read."""
    try:
        return frozenset(file.path for file in repository_files(Path(repository)).files)
    except PeftDaemonError:
        return frozenset()


def _path(suggestion: AcceptedSuggestion, listed: frozenset[str] | None) -> str | None:
    """Return the path for the example; None if the file may not be learned from."""
    if suggestion.path is None:
        return ""
    file = Path(suggestion.path)
    if listed is not None and suggestion.repository is not None:
        path = file.relative_to(suggestion.repository).as_posix()
        return path if path in listed else None
    try:
        rules, base = ignore_rules(file.parent)
    except PeftDaemonError:
        return None
    return None if rules.match(base + file.name) else file.name


def _without_secrets(
    suggestion: AcceptedSuggestion, path: str, plugins: tuple[BasePlugin, ...]
) -> AcceptedSuggestion | None:
    """Return the suggestion with secrets removed from the lines around it; None if it holds one itself."""
    first = suggestion.prefix.count("\n")
    last = first + suggestion.middle.count("\n")
    whole = suggestion.prefix + suggestion.middle + suggestion.suffix
    cleaned = without_secrets(whole, path or "document", plugins)
    if any(first <= line <= last for line in cleaned.lines):
        return None
    lines = cleaned.text.split("\n")
    begun = suggestion.prefix[suggestion.prefix.rfind("\n") + 1 :]
    rest, _, _ = suggestion.suffix.partition("\n")
    return replace(
        suggestion,
        prefix="\n".join([*lines[:first], begun]),
        suffix="\n".join([rest, *lines[last + 1 :]]),
    )


def _example(suggestion: AcceptedSuggestion, path: str) -> FillExample:
    middle = suggestion.middle.rstrip()
    return FillExample(
        id=suggestion.id,
        prefix=suggestion.prefix,
        suffix=suggestion.suffix,
        middle=middle,
        path=path,
        language=suggestion.language,
        kind=HoleKind.BLOCK if "\n" in middle else HoleKind.LINE,
        weight=suggestion.weight,
    )
