"""A data set from the user's repository, or from folders of sources: every step of the package in a row.

Two passes. The first reads every file once and keeps what was cut as numbers; the second reads again the files whose
holes were chosen, and copies the text out. So memory grows with the examples that are kept, not with the repository.

Nothing depends on the order in which a file system lists files: the same files, seed and settings give the same data
set. An example holds what serving would see of its file: see ``window``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from peft_core.code import git
from peft_core.code.files import SkipReason, SourceFile, SourceListing, read_source
from peft_core.code.imports import RelatedFiles
from peft_core.code.structure import Function, Span, Structure, parse_structure
from peft_core.errors import InvalidInput
from peft_core.tasks import OnProgress
from peft_daemon.completion.prompt import TYPED_LINES
from peft_tuning.data.examples import DataSet, Example, FillExample, Split, newest_first, seeded_number, split_files
from peft_tuning.data.repository.files import licence_of, repository_files, source_files
from peft_tuning.data.repository.filters import (
    detectors,
    file_index,
    file_parts,
    function_index,
    function_parts,
    without_secrets,
)
from peft_tuning.data.repository.holes import Hole, HoleSettings, cut, intents
from peft_tuning.events import Loading, ignore

BEFORE, AFTER = 12_000, 6_000
"""Characters of a file that an example holds on each side of its hole: more than the longest prompt has."""
LEAST_FILES = 3
"""Files with holes; each part of the data set needs one of its own."""
SAME = 40
"""Characters, white space aside, from which on two middles that are equal are no coincidence."""


@dataclass(frozen=True, kw_only=True)
class DataMix:
    """What a data set is made of."""

    cutting: HoleSettings = field(default_factory=HoleSettings)
    intents: float = 0.1
    """Part of the examples that are sentences with their functions; 0 for an adapter that only fills in."""
    with_context: float = 0.5
    """Part of the holes that come with chunks of related files: an editor may send them or not."""
    validation: float = 0.1
    """Part of the code held out to choose the best checkpoint by ..."""
    test: float = 0.1
    """... and to judge the adapter by; the newest."""
    most: int = 20_000
    """Examples in all parts together, where the caller names no number."""
    most_held_out: int = 500
    """Examples in each of validation and test."""


def repository_data_set(
    root: Path,
    *,
    seed: int = 42,
    max_examples: int | None = None,
    on_progress: OnProgress[Loading] = ignore,
    mix: DataMix | None = None,
) -> DataSet:
    """Examples from the tracked files below ``root``, the most recently changed ones held out.

    Raises InvalidInput where there is no git work tree, too little code, or a wrong ``.peft-daemon.toml``; Unavailable
    without git.
    """
    listing = repository_files(root)
    root = root.resolve()
    times = {
        path.decode("utf-8", "replace"): when
        for path, when in git.last_commits(root, [each.path.encode() for each in listing.files]).items()
    }
    commit = git.head_commit(root)
    rule = "by the time of their last commit" if len(set(times.values())) > 1 else "drawn by seed"
    return _data_set(
        name=root.name or "repository",
        listing=listing,
        times=times,
        licence=licence_of(root),
        origin=f"git work tree at {commit[:12] or 'no commit yet'}; files held out {rule}",
        seed=seed,
        most=max_examples,
        on_progress=on_progress,
        mix=mix or DataMix(),
    )


def folders_data_set(
    roots: Sequence[tuple[Path, str]],
    *,
    name: str = "folders",
    ignore: Sequence[str] = (),
    seed: int = 42,
    max_examples: int | None = None,
    on_progress: OnProgress[Loading] = ignore,
    mix: DataMix | None = None,
) -> DataSet:
    """Examples from all sources below plain folders, each given with its licence (an SPDX id), without git.

    ``ignore`` holds patterns as in a .gitignore, for paths below each folder. Raises InvalidInput for a folder that is
    missing or too little code.
    """
    listing = source_files(roots, ignore)
    return _data_set(
        name=name,
        listing=listing,
        times={},
        licence=" AND ".join(sorted({licence for _root, licence in roots})),
        origin="; ".join(f"{root.resolve().name} ({licence})" for root, licence in roots) + "; files held out by seed",
        seed=seed,
        most=max_examples,
        on_progress=on_progress,
        mix=mix or DataMix(),
    )


@dataclass(frozen=True)
class _FileCuts:
    """What was cut from one file, without its text."""

    source: SourceFile
    digest: bytes
    """Of the text: a file that changes before it is read again is left out."""
    secret: frozenset[int]
    holes: tuple[Hole, ...]
    sentences: tuple[str, ...]
    """Ids of the intent examples."""


def _data_set(
    *,
    name: str,
    listing: SourceListing,
    times: Mapping[str, int],
    licence: str,
    origin: str,
    seed: int,
    most: int | None,
    on_progress: OnProgress[Loading],
    mix: DataMix,
) -> DataSet:
    limit = mix.most if most is None else most
    dropped = Counter({f"file: {reason}": count for reason, count in listing.skipped.items()})
    if limit < LEAST_FILES:
        raise InvalidInput(f"{limit} examples are too few", fix=f"Ask for at least {LEAST_FILES}")
    sources = {source.path: source for source in listing.files}
    order = [sources[path] for path in newest_first(list(sources), times, seed)]
    plans = {plan.source.path: plan for plan in _scan(order, seed, mix, dropped, on_progress)}
    if len(plans) < LEAST_FILES:
        raise InvalidInput(
            f"too little code in {name}: {len(plans)} usable files where {LEAST_FILES} are needed",
            why=", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "there are no files",
            fix="Add files with `git add`, loosen the ignore rules, or use a data set: `peft-daemon datasets list`",
        )
    parts = split_files(
        {path: len(plan.holes) for path, plan in plans.items()}, validation=mix.validation, test=mix.test
    )
    held_out = min(mix.most_held_out, max(1, limit // 10))
    writer = _Writer(plans, seed, mix, dropped)
    made: dict[Split, tuple[Example, ...]] = {}
    visible: list[str] = []
    room = limit
    for part in (Split.TEST, Split.VALIDATION, Split.TRAIN):
        own = [path for path in plans if parts[path] is part]
        chosen = _choose([plans[path] for path in own], room if part is Split.TRAIN else held_out, seed, mix, dropped)
        # Training sees training files only, validation also its own, the test everything, as an editor does.
        visible = [p for p in plans if part is Split.TEST or parts[p] is part or parts[p] is Split.TRAIN]
        made[part] = tuple(writer.write(part, chosen, visible, on_progress))
        room -= len(made[part])
    return DataSet(
        name=name,
        train=made[Split.TRAIN],
        validation=made[Split.VALIDATION],
        test=made[Split.TEST],
        dropped=dict(sorted((+dropped).items())),
        licence=licence,
        provenance=f"{origin}; {len(plans)} files; seed {seed}",
    )


def _scan(
    sources: Sequence[SourceFile], seed: int, mix: DataMix, dropped: Counter[str], on_progress: OnProgress[Loading]
) -> Iterator[_FileCuts]:
    """Read every file once, newest first: of two copies the newer is the original, and so the one held out."""
    known_files, known_functions = file_index(), function_index()
    with detectors() as plugins:
        for done, source in enumerate(sources):
            path = source.path
            on_progress(Loading(what="reading files", done=done, of=len(sources)))
            text = read_source(source)
            if isinstance(text, SkipReason):
                dropped[f"file: {text.value}"] += 1
                continue
            digest = blake2b(text.encode()).digest()
            cleaned = without_secrets(text, path, plugins)
            dropped["line: secret"] += len(cleaned.lines)
            if known_files.seen_before(file_parts(cleaned.text)):
                dropped["file: near-duplicate"] += 1
                continue
            found = parse_structure(cleaned.text, source.language)
            copies = [each.span for each in found.outermost if known_functions.seen_before(_parts(found, each))]
            dropped["function: near-duplicate"] += len(copies)
            avoid = [*copies, *_lines(found, cleaned.lines)]
            holes = cut(found, seed=f"{seed}/{path}", cutting=mix.cutting, avoid=avoid)
            if holes:
                sentences = tuple(each.id for each in intents(found, path, avoid))
                yield _FileCuts(source, digest, cleaned.lines, holes, sentences)
            else:
                dropped["file: nothing to cut"] += 1
    on_progress(Loading(what="reading files", done=len(sources), of=len(sources)))


def _choose(
    plans: Sequence[_FileCuts], room: int, seed: int, mix: DataMix, dropped: Counter[str]
) -> Mapping[str, tuple[list[Hole], frozenset[str]]]:
    """At most ``room`` of the holes and sentences, by path."""
    rng = random.Random(seed)  # noqa: S311  (choice, not secrecy)
    holes = [(plan.source.path, hole) for plan in plans for hole in plan.holes]
    sentences = [(plan.source.path, each) for plan in plans for each in plan.sentences]
    total = min(room, int(len(holes) / (1 - mix.intents))) if mix.intents < 1 else room
    kept_sentences = rng.sample(sentences, min(len(sentences), round(total * mix.intents)))
    kept_holes = rng.sample(holes, min(len(holes), room - len(kept_sentences)))
    dropped["example: more than asked for"] += len(holes) - len(kept_holes)
    chosen: dict[str, tuple[list[Hole], frozenset[str]]] = {}
    for path, hole in kept_holes:
        chosen.setdefault(path, ([], frozenset()))[0].append(hole)
    for path, each in kept_sentences:
        mine = chosen.get(path, ([], frozenset()))
        chosen[path] = (mine[0], mine[1] | {each})
    return chosen


class _Writer:
    """The second pass: texts for what was chosen, test first, nothing twice."""

    def __init__(self, plans: Mapping[str, _FileCuts], seed: int, mix: DataMix, dropped: Counter[str]) -> None:
        self._plans, self._seed, self._mix, self._dropped = plans, seed, mix, dropped
        self._met: set[bytes] = set()

    def write(
        self,
        part: Split,
        chosen: Mapping[str, tuple[list[Hole], frozenset[str]]],
        visible: Sequence[str],
        on_progress: OnProgress[Loading],
    ) -> list[Example]:
        """The examples of a part, in an order drawn by seed, with context from the files that may be seen."""
        related = RelatedFiles(visible, self._text)
        examples: list[Example] = []
        before = frozenset(self._met)
        for done, path in enumerate(sorted(chosen)):
            on_progress(Loading(what=f"cutting {part}", done=done, of=len(chosen)))
            holes, sentences = chosen[path]
            text = self._text(path)
            if not text:
                self._dropped["example: its file changed meanwhile"] += len(holes) + len(sentences)
                continue
            source = self._plans[path].source
            chunks = related.chunks(path, text)
            for hole in holes:
                start, end = window(text, hole)
                examples.append(
                    FillExample(
                        id=f"{path}:{text.count(chr(10), 0, hole.start) + 1}:{hole.kind}:{hole.start}",
                        prefix=text[start : hole.start],
                        middle=text[hole.start : hole.end],
                        suffix=text[hole.end : end],
                        path=path,
                        language=source.language,
                        kind=hole.kind,
                        context=chunks if self._with_context(path, hole) else (),
                    )
                )
            if sentences:
                examples += [
                    each for each in intents(parse_structure(text, source.language), path) if each.id in sentences
                ]
        on_progress(Loading(what=f"cutting {part}", done=len(chosen), of=len(chosen)))
        kept = [each for each in examples if not self._again(each, before)]
        self._dropped["example: same as one held out"] += len(examples) - len(kept)
        kept.sort(key=lambda each: seeded_number(self._seed, each.id))
        return kept

    def _text(self, path: str) -> str:
        """The text as it was when it was cut, without secrets; empty if it is not that any more."""
        plan = self._plans[path]
        text = read_source(plan.source)
        if isinstance(text, SkipReason) or blake2b(text.encode()).digest() != plan.digest:
            return ""
        lines = text.split("\n") if plan.secret else []
        return "\n".join("" if row in plan.secret else line for row, line in enumerate(lines)) if lines else text

    def _with_context(self, path: str, hole: Hole) -> bool:
        return seeded_number(self._seed, f"{path}:{hole.start}:{hole.end}") % 1000 < self._mix.with_context * 1000

    def _again(self, example: Example, before: frozenset[bytes]) -> bool:
        """Whether an earlier part asks for the same text; short ones are no coincidence to avoid."""
        answer = example.middle if isinstance(example, FillExample) else example.code
        bare = "".join(answer.split())
        digest = blake2b(bare.encode(), digest_size=16).digest()
        self._met.add(digest)
        return len(bare) >= SAME and digest in before


def window(text: str, hole: Hole) -> tuple[int, int]:
    """What an example keeps of its file: ``BEFORE`` and ``AFTER`` characters, cut at line starts.

    Lines go at the start by as many as the prompt counts at a time, so that it is laid out as with the whole file.
    """
    start = 0
    if hole.start > BEFORE:
        start = text.find("\n", hole.start - BEFORE) + 1
        for _line in range(-text.count("\n", 0, start) % TYPED_LINES):
            start = text.find("\n", start) + 1
        start = start if 0 < start <= hole.start else hole.start - BEFORE
    end = text.find("\n", hole.end + AFTER) + 1
    return start, end or len(text)


def _parts(found: Structure, function: Function) -> list[str]:
    """What a function is compared by: all but its docstring."""
    text, span, docstring = found.text.text, function.span, function.docstring
    without = text[span.start : docstring.start] + text[docstring.end : span.end] if docstring else None
    return function_parts(text[span.start : span.end] if without is None else without)


def _lines(found: Structure, rows: frozenset[int]) -> Iterator[Span]:
    """The lines of these numbers, with their ends."""
    for row in sorted(rows):
        yield Span(found.text.starts[row], found.text.starts[row] + 1)
