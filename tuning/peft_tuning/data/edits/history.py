"""Make a data set of next edits from the commits of one repository or of several, the newest held out.

What judges is newer than all that is learned, as it is for the adapter when it serves. Merges, formatting, files that
were generated or vendored and those that an ignore rule names are left out, and so is what shows a secret: in the
window, the answer, the edits of the history or the lines around. The same commits and seed give the same data set.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from random import Random

from detect_secrets.plugins.base import BasePlugin

from peft_core.code.commit_edits import ChangedFile, EditCommit, edit_commits
from peft_core.code.edits import join_lines
from peft_core.code.git import head_commit, is_shallow, path_attributes, require_work_tree
from peft_core.code.patterns import FilePatterns
from peft_core.errors import InvalidInput
from peft_core.tasks import OnProgress
from peft_tuning.data.edits.windows import commit_windows
from peft_tuning.data.examples import DataSet, EditExample, drop_duplicates, drop_overlap
from peft_tuning.data.repository.files import ignore_rules, licence_of
from peft_tuning.data.repository.filters import detectors, without_secrets
from peft_tuning.events import Loading, ignore

PROMPT_TOKENS, ANSWER_TOKENS = 768, 256
"""Together the 1,024 of a forward pass."""
HELD_OUT = 100
"""Examples of the newest commits that judge; a third as many, of the next ones, choose the scale."""
MAX_HELD_OUT_SHARE = 0.25
"""Share of all examples that judge, at most, where a history is short."""
MIN_EXAMPLES = 40
"""Fewer examples in a history teach nothing, and the quarter of them that is held out judges nothing."""
CHECKED_LINES = 100
"""Lines around a window that are searched for secrets: what a prompt can show."""
READ_S = 300.0
"""Longest time for reading a history."""


@dataclass(frozen=True)
class _LearnedHistory:
    """The examples of a repository by commit, the newest first."""

    name: str
    head: str
    commits: list[list[EditExample]] = field(default_factory=list)
    oldest: int = 0
    """When the oldest of these commits was made, in seconds since 1970."""

    @property
    def count(self) -> int:
        return sum(map(len, self.commits))


def edits_data_set(
    roots: Sequence[tuple[Path, str]],
    *,
    name: str,
    seed: int,
    max_examples: int,
    held_out: int = HELD_OUT,
    ignored: Sequence[str] = (),
    on_progress: OnProgress[Loading] = ignore,
) -> DataSet:
    """Make examples from the histories of repositories, each given with its licence; empty: that of its file.

    ``max_examples`` is the most to learn from, of all repositories together. ``ignored`` has patterns as in a
    .gitignore. Raises InvalidInput where a folder is no work tree, or a history is shallow or too short; Unavailable
    without git.
    """
    dropped: Counter[str] = Counter()
    each_room = max_examples // len(roots) + 1
    each_held_out = -(-held_out // len(roots))
    found: list[_LearnedHistory] = []
    with detectors() as plugins:
        for root, _licence in roots:
            reader = _HistoryReader(root, seed, plugins, dropped, FilePatterns(ignored, "the patterns given"))
            found.append(reader.read(max(MIN_EXAMPLES, each_room + 2 * each_held_out), on_progress))
    parts = [_divided(each, each_held_out) for each in found]
    test, validation, train = (drop_duplicates(_by_turns([part[at] for part in parts]), dropped) for at in range(3))
    validation = drop_overlap(validation, test, dropped, "example: also held out to judge")
    train = drop_overlap(train, [*test, *validation], dropped, "example: also held out")
    licences = {licence or licence_of(root.resolve()) for root, licence in roots}
    return DataSet(
        name=name,
        train=tuple(train[:max_examples]),
        validation=tuple(validation),
        test=tuple(test),
        dropped=dict(sorted((+dropped).items())),
        licence=" AND ".join(sorted(licences)),
        provenance="; ".join(map(_origin, found)) + f"; newest commits held out; seed {seed}",
        prompt_tokens=PROMPT_TOKENS,
        response_tokens=ANSWER_TOKENS,
    )


class _HistoryReader:
    """Reads the examples of one repository."""

    def __init__(
        self,
        root: Path,
        seed: int,
        plugins: tuple[BasePlugin, ...],
        dropped: Counter[str],
        ignored: FilePatterns,
    ) -> None:
        require_work_tree(root)
        self._root, self._seed, self._plugins, self._dropped = root.resolve(), seed, plugins, dropped
        self._rules, self._base = ignore_rules(self._root)
        self._ignored = ignored
        self._marked: dict[str, bool] = {}

    def read(self, most: int, on_progress: OnProgress[Loading]) -> _LearnedHistory:
        """Return about ``most`` examples; raises InvalidInput where there are fewer than ``MIN_EXAMPLES``."""
        name = self._root.name or "repository"
        commits: list[list[EditExample]] = []
        count, oldest, head = 0, 0, head_commit(self._root)
        for commit in edit_commits(self._root, max_seconds=READ_S) if head else ():
            on_progress(Loading(what=f"reading commits of {name}", done=min(count, most), of=most))
            if own := self._examples(name, commit):
                commits.append(own)
                count, oldest = count + len(own), commit.at
            if count >= most:
                break
        on_progress(Loading(what=f"reading commits of {name}", done=most, of=most))
        if count < MIN_EXAMPLES:
            raise self._too_short(name, count, head)
        return _LearnedHistory(name, head, commits, oldest)

    def _examples(self, name: str, commit: EditCommit) -> list[EditExample]:
        files = [each for each in commit.files if self._is_learned(each)]
        made = commit_windows(name, commit, files, Random(f"{self._seed}/{commit.id}"))  # noqa: S311  (repeatable)
        self._dropped["change: in no place that is looked at"] += made.outside
        kept = [each for each in made.examples if not self._shows_secret(each)]
        self._dropped["example: shows a secret"] += len(made.examples) - len(kept)
        return kept

    def _is_learned(self, file: ChangedFile) -> bool:
        path = file.path
        if path not in self._marked:
            names = ("linguist-generated", "linguist-vendored")
            attributes = path_attributes(self._root, [path.encode()], names)
            self._marked[path] = any(attributes.values())
        ruled_out = self._rules.match(self._base + path) or self._ignored.match(path)
        self._dropped["file of a commit: ignored, generated or vendored"] += ruled_out or self._marked[path]
        return not (ruled_out or self._marked[path])

    def _shows_secret(self, example: EditExample) -> bool:
        moment, place = example.moment, example.place
        around = slice(max(0, place.start - CHECKED_LINES), place.end + CHECKED_LINES)
        edits = [line for each in moment.edits for line in (*each.change.old, *each.change.new)]
        text = join_lines((*moment.lines[around], *example.answer, *edits))
        return bool(without_secrets(text, moment.path, self._plugins).lines)

    def _too_short(self, name: str, count: int, head: str) -> InvalidInput:
        where = shlex.quote(str(self._root))
        if not head:
            why, fix = "nothing is committed there", "Commit your work, or tune on the code: leave out `--edits`"
        elif is_shallow(self._root):
            why = f"the clone is shallow; {count} examples are in what it has, {MIN_EXAMPLES} are needed"
            fix = f"Fetch the rest: `git -C {where} fetch --unshallow`"
        else:
            why = f"{count} examples are in its commits, {MIN_EXAMPLES} are needed"
            fix = "Tune on the code: leave out `--edits`; or on more histories: `--edits --code FOLDER --code FOLDER`"
        return InvalidInput(f"too little history in {name} to learn edits from", why=why, fix=fix)


_Parts = tuple[list[EditExample], list[EditExample], list[EditExample]]
"""What judges, what chooses, and what is learned."""


def _divided(history: _LearnedHistory, held_out: int) -> _Parts:
    """Divide by commits: the newest judge, the next ones choose the scale, the others are learned."""
    judging = min(held_out, int(history.count * MAX_HELD_OUT_SHARE))
    parts: _Parts = ([], [], [])
    wanted = judging, -(-judging // 3)
    at = 0
    for commit in history.commits:
        while at < len(wanted) and len(parts[at]) >= wanted[at]:
            at += 1
        parts[at].extend(commit)
    return parts


def _by_turns(lists: Sequence[Sequence[EditExample]]) -> list[EditExample]:
    return [each for turn in zip_longest(*lists) for each in turn if each is not None]


def _origin(history: _LearnedHistory) -> str:
    since = datetime.fromtimestamp(history.oldest, UTC).date()
    return f"{history.name} at {history.head[:12]}, {len(history.commits)} commits since {since}"
