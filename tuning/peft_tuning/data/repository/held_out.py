"""Divide a repository into code that is learned and code that judges what was learned.

Judged is what the user wrote last: holes in the lines that the newest commits added. Learned is the tree as it was
before these commits. A repository without such a history is divided by files: the newest ones are held out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_core.code import git
from peft_core.code.files import SkipReason, SourceFile, SourceListing, decode_source, list_sources, read_source
from peft_core.code.history import hold_out, texts_at
from peft_core.code.structure import Span, Structure
from peft_tuning.data.examples import FillExample, HoleKind, Split, newest_first, seeded_number, split_files
from peft_tuning.data.repository.dataset import MIN_REPEAT_CHARS, fill_example, window
from peft_tuning.data.repository.files import ignore_rules
from peft_tuning.data.repository.filters import SourceFilter
from peft_tuning.data.repository.holes import Hole, HoleSettings, cut_holes

MAX_SHARE = 0.2
"""Largest share of the repository's lines that is held out."""
LINES_PER_HOLE = 4
"""Lines that are held out for each hole that is asked for."""
MAX_FILE_HOLES = 400
"""Most holes that are cut in one file; those that overlap, or whose answers are learned, are left out later."""
MAX_GROUP_ROWS = 40
"""Holes in rows that stand together are in the same part of the data set, up to so many rows."""
SHARES: Mapping[HoleKind, float] = {HoleKind.LINE: 0.55, HoleKind.BLOCK: 0.3, HoleKind.TOKEN: 0.15}
"""Kinds of the held-out holes. A whole body has too many right answers."""


@dataclass(frozen=True)
class HeldOutFile:
    """A file of which some rows are held out."""

    source: SourceFile
    text: str
    rows: tuple[range, ...]


@dataclass(frozen=True, kw_only=True)
class DividedCode:
    """The code of a repository, divided into what is learned and what is held out."""

    learned: tuple[SourceFile, ...]
    read: Callable[[Sequence[SourceFile]], Iterator[tuple[SourceFile, str | SkipReason]]]
    """Reads those of the learned files that are there, in the order given."""
    held_out: tuple[HeldOutFile, ...]
    commit: str
    """The newest commit that training may see; empty if there is none."""
    origin: str
    """How the code was divided, for the model card."""
    tree: str = ""
    """The commit that is learned, where lines of newer ones are held out; else empty."""


def divide_by_commits(root: Path, listing: SourceListing, *, lines: int, dropped: Counter[str]) -> DividedCode | None:
    """Hold out at least ``lines`` lines that the newest commits added, if they are not too large a part of the code.

    All texts are read from commits: changes in the work tree that are not committed are neither learned nor judged.
    Returns None where no commits can be held out, see ``peft_core.code.history.hold_out``.
    """
    sources = {source.path: source for source in listing.files}
    newest = hold_out(root, sources, lines=lines, share=MAX_SHARE)
    if newest is None:
        return None
    held_out = []
    for path, data in texts_at(root, newest.head, list(newest.added)):
        text = decode_source(data)
        # Rows are git's: a carriage return within a line would begin a row for us but not for git.
        if not isinstance(text, SkipReason) and data.count(b"\r") == data.count(b"\r\n"):
            held_out.append(HeldOutFile(sources[path], text, newest.added[path]))
    rules, below = ignore_rules(root)
    then = [newest.old_paths.get(path, path) for path in sources]
    learned = list_sources(
        root, (SkipReason.RULED_OUT if rules.match(below + path) else (path, root / path) for path in then)
    )
    dropped.update({f"file: {reason}": count for reason, count in learned.skipped.items()})

    def read(files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, str | SkipReason]]:
        by_path = {file.path: file for file in files}
        for path, data in texts_at(root, newest.base, list(by_path)):
            yield by_path[path], decode_source(data)

    return DividedCode(
        learned=learned.files,
        read=read,
        held_out=tuple(held_out),
        commit=newest.base,
        origin=(
            f"git history: the tree at {newest.base[:12]} is learned; held out are {newest.lines} lines that "
            f"{newest.commits} newer commit{'s' if newest.commits > 1 else ''} added up to {newest.head[:12]}"
        ),
        tree=newest.base,
    )


def divide_by_files(root: Path, listing: SourceListing, *, lines: int, seed: int) -> DividedCode:
    """Hold out the files that were committed last, with about ``lines`` lines; none if there are too few files.

    Files are read from the work tree.
    """
    sources = {source.path: source for source in listing.files}
    times = {
        path.decode("utf-8", "replace"): when
        for path, when in git.last_commits(root, [path.encode() for path in sources]).items()
    }
    texts = {}
    for path in newest_first(list(sources), times, seed):
        text = read_source(sources[path])
        if not isinstance(text, SkipReason):
            texts[path] = text
    weights = {path: text.count("\n") + 1 for path, text in texts.items()}
    share = min(MAX_SHARE, lines / max(1, sum(weights.values()))) / 2
    parts = split_files(weights, validation=share, test=share) if weights else {}
    held_out = [path for path in weights if parts[path] is not Split.TRAIN]

    def read(files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, str | SkipReason]]:
        for file in files:
            yield file, read_source(file)

    commit = git.head_commit(root)
    rule = "the newest by their last commit" if len(set(times.values())) > 1 else "drawn by seed"
    return DividedCode(
        learned=tuple(source for path, source in sources.items() if path not in held_out),
        read=read,
        held_out=tuple(HeldOutFile(sources[path], texts[path], (range(weights[path]),)) for path in held_out),
        commit=commit,
        origin=(
            f"work tree at {commit[:12] or 'no commit yet'}; there are no newest commits to hold out, so "
            f"{len(held_out)} whole files are held out, {rule}"
        ),
    )


@dataclass(frozen=True)
class HeldOutHole:
    """A hole in held-out rows, as an example, and what it must not share with code that is learned."""

    example: FillExample
    group: str
    """Holes of one group are in the same part."""
    texts: frozenset[str]
    """Its answer, and its lines as a whole, without white space; short ones are left out."""


class HeldOutHoles:
    """Holes in held-out rows, without those whose answers are in code that is learned."""

    def __init__(self, files: Sequence[HeldOutFile], *, seed: int, source_filter: SourceFilter) -> None:
        """Cut the holes; secrets and copies among the files are removed by ``source_filter``."""
        self._seed = seed
        self._holes: list[HeldOutHole] = []
        for file in files:
            filtered = source_filter.apply(file.text, file.source.path, file.source.language)
            if filtered is not None:
                self._holes += _cut(filtered.structure, file, filtered.avoid, seed)

    def drop_learned(self, text: str) -> int:
        """Drop the holes whose answer, or whose whole lines, are in a text that is learned; return their number."""
        bare = _bare(text)
        kept = [hole for hole in self._holes if not any(each in bare for each in hole.texts)]
        count = len(self._holes) - len(kept)
        self._holes = kept
        return count

    def drop_seen(self, is_seen: Callable[[FillExample], bool]) -> int:
        """Drop the holes that were learned already, by an earlier version of the adapter; return their number."""
        kept = [hole for hole in self._holes if not is_seen(hole.example)]
        count = len(self._holes) - len(kept)
        self._holes = kept
        return count

    def answered_by(self, text: str) -> bool:
        """Return whether a text has the answer, or the whole lines, of one of the holes."""
        bare = _bare(text)
        return any(each in bare for hole in self._holes for each in hole.texts)

    def parts(self, count: int) -> tuple[tuple[FillExample, ...], tuple[FillExample, ...]]:
        """Return validation and test, of at most ``count`` holes each; they have no row and no long answer in common.

        Groups of rows are given to the smaller part, in an order by seed. The holes of a part are ordered by seed.
        """
        groups: dict[str, list[HeldOutHole]] = defaultdict(list)
        for hole in self._holes:
            groups[hole.group].append(hole)
        test: list[HeldOutHole] = []
        validation: list[HeldOutHole] = []
        for name in sorted(groups, key=lambda name: (seeded_number(self._seed, name), name)):
            smaller = test if len(test) <= len(validation) else validation
            smaller += groups[name]
        taken = {text for hole in test for text in hole.texts}
        validation = [hole for hole in validation if taken.isdisjoint(hole.texts)]
        return self._first(validation, count), self._first(test, count)

    def _first(self, holes: list[HeldOutHole], count: int) -> tuple[FillExample, ...]:
        examples = [hole.example for hole in holes]
        return tuple(sorted(examples, key=lambda each: (seeded_number(self._seed, each.id), each.id))[:count])


def _cut(found: Structure, file: HeldOutFile, avoid: Sequence[Span], seed: int) -> Iterator[HeldOutHole]:
    """Yield holes that lie within held-out rows and do not overlap, so that each is a judgement of its own.

    Those that reach from one group of rows into the next are left out.
    """
    text, source = found.text, file.source
    groups = [
        range(start, min(start + MAX_GROUP_ROWS, rows.stop))
        for rows in file.rows
        for start in range(rows.start, rows.stop, MAX_GROUP_ROWS)
        if rows.stop <= len(text.lines)
    ]
    if not groups:
        return
    count = sum(bool(text.lines[row].strip()) for rows in groups for row in rows)
    settings = HoleSettings(shares=SHARES, lines_per_hole=1, max_holes=min(MAX_FILE_HOLES, count), max_lines=12)
    ends = [
        0,
        *(edge for rows in groups for edge in (text.starts[rows.start], text.starts[rows.stop])),
        text.starts[-1],
    ]
    others = [Span(start, end) for start, end in zip(ends[::2], ends[1::2], strict=True) if start < end]
    taken: list[Span] = []
    holes = cut_holes(found, seed=f"{seed}/{source.path}", settings=settings, avoid=(*avoid, *others))
    for hole in sorted(holes, key=lambda hole: hole.kind is not HoleKind.BLOCK):  # blocks need the most room
        first, last = text.row(hole.start), text.row(hole.end - 1)
        group = next((rows for rows in groups if first in rows and last in rows), None)
        span = Span(hole.start, hole.end)
        if group is not None and not any(span.overlaps(each) for each in taken):
            taken.append(span)
            example = fill_example(text.text, hole, window(text.text, hole), source.path, source.language)
            yield HeldOutHole(example, f"{source.path}:{group.start}", _long_texts(found, hole))


def _long_texts(found: Structure, hole: Hole) -> frozenset[str]:
    text = found.text
    lines = text.text[text.starts[text.row(hole.start)] : text.starts[text.row(hole.end - 1) + 1]]
    both = (_bare(text.text[hole.start : hole.end]), _bare(lines))
    return frozenset(each for each in both if len(each) >= MIN_REPEAT_CHARS)


def _bare(text: str) -> str:
    return "".join(text.split())
