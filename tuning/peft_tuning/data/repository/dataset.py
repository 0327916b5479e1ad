"""Make a data set of holes from plain folders of source code, such as the libraries of a corpus.

There are two passes. The first reads every file once and keeps only the positions of holes; the second reads the files
of the chosen holes again and copies their text. So memory grows with the examples that are kept, not with the folders.

The order in which a file system lists files has no influence: the same files, seed and settings give the same data set.
An example holds what completion would see of its file: see ``window``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path

from peft_core.api_types import ContextChunk
from peft_core.code.files import SkipReason, SourceFile, read_source
from peft_core.code.imports import RelatedFiles
from peft_core.errors import InvalidInput
from peft_core.tasks import OnProgress
from peft_daemon.completion.prompt import TYPED_LINES
from peft_tuning.data.examples import DataSet, FillExample, Split, newest_first, seeded_number, split_files
from peft_tuning.data.repository.files import source_files
from peft_tuning.data.repository.filters import SourceFilter, detectors
from peft_tuning.data.repository.holes import Hole, HoleSettings, cut_holes
from peft_tuning.events import Loading, ignore

MAX_PREFIX_CHARS, MAX_SUFFIX_CHARS = 12_000, 6_000
"""Most characters of a file in an example, before and after its hole: more than the longest prompt has."""
MIN_FILES = 3
"""Files with holes: each part of the data set needs one."""
MIN_REPEAT_CHARS = 40
"""Shorter answers (without white space) may be equal by coincidence; they do not count as repeated."""


@dataclass(frozen=True, kw_only=True)
class DataMix:
    """The mixture of a data set; shares are from 0 to 1."""

    holes: HoleSettings = field(default_factory=HoleSettings)
    context_share: float = 0.25
    """Share of the holes that have chunks of related files: an editor may send such chunks or not."""
    validation_share: float = 0.1
    """Share of the code that is held out to choose the best checkpoint."""
    test_share: float = 0.1
    """Share of the code that is held out for evaluations."""
    max_examples: int = 20_000
    """Most examples in all parts together."""
    max_held_out: int = 500
    """Most examples in validation, and in test."""


def folders_data_set(
    roots: Sequence[tuple[Path, str]],
    *,
    name: str = "folders",
    ignore: Sequence[str] = (),
    seed: int = 42,
    on_progress: OnProgress[Loading] = ignore,
    mix: DataMix | None = None,
) -> DataSet:
    """Make examples from all sources below plain folders, each given with its licence (an SPDX id), without git.

    ``ignore`` has patterns as in a .gitignore, for paths below each folder. Raises InvalidInput for a missing folder,
    or too little code.
    """
    listing = source_files(roots, ignore)
    mix = mix or DataMix()
    limit = mix.max_examples
    dropped = Counter({f"file: {reason}": count for reason, count in listing.skipped.items()})
    if limit < MIN_FILES:
        raise InvalidInput(f"{limit} examples are too few", fix=f"Ask for at least {MIN_FILES}")
    sources = {source.path: source for source in listing.files}
    order = [sources[path] for path in newest_first(list(sources), {}, seed)]
    plans = {plan.source.path: plan for plan in _scan(order, seed, mix, dropped, on_progress)}
    if len(plans) < MIN_FILES:
        raise InvalidInput(
            f"too little code in {name}: {len(plans)} usable files where {MIN_FILES} are needed",
            why=", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "there are no files",
            fix="Name more folders, ignore less, or use a data set: `peft-daemon datasets list`",
        )
    parts = split_files(
        {path: len(plan.holes) for path, plan in plans.items()}, validation=mix.validation_share, test=mix.test_share
    )
    held_out = min(mix.max_held_out, max(1, limit // 10))
    writer = _Writer(plans, seed, mix, dropped)
    made: dict[Split, tuple[FillExample, ...]] = {}
    visible: list[str] = []
    room = limit
    for part in (Split.TEST, Split.VALIDATION, Split.TRAIN):
        own = [path for path in plans if parts[path] is part]
        chosen = _choose([plans[path] for path in own], room if part is Split.TRAIN else held_out, seed, dropped)
        # Chunks for training come from training files only, for validation also from its own; for the test from all
        # files, as in an editor.
        visible = [p for p in plans if part is Split.TEST or parts[p] is part or parts[p] is Split.TRAIN]
        made[part] = tuple(writer.write(part, chosen, visible, on_progress))
        room -= len(made[part])
    origin = "; ".join(f"{root.resolve().name} ({licence})" for root, licence in roots)
    return DataSet(
        name=name,
        train=made[Split.TRAIN],
        validation=made[Split.VALIDATION],
        test=made[Split.TEST],
        dropped=dict(sorted((+dropped).items())),
        licence=" AND ".join(sorted({each for _root, licence in roots for each in licence.split(" AND ")})),
        provenance=f"{origin}; files held out by seed; {len(plans)} files; seed {seed}",
    )


@dataclass(frozen=True)
class _FileCuts:
    """The holes of one file, without their text."""

    source: SourceFile
    digest: bytes
    """Hash of the text; a file that has changed in the second pass is left out."""
    secret: frozenset[int]
    """Rows that hold a secret."""
    holes: tuple[Hole, ...]


def _scan(
    sources: Sequence[SourceFile], seed: int, mix: DataMix, dropped: Counter[str], on_progress: OnProgress[Loading]
) -> Iterator[_FileCuts]:
    """Read every file once; of two copies the first one is kept, which may be held out."""
    with detectors() as plugins:
        source_filter = SourceFilter(plugins, dropped)
        for done, source in enumerate(sources):
            path = source.path
            on_progress(Loading(what="reading files", done=done, of=len(sources)))
            text = read_source(source)
            if isinstance(text, SkipReason):
                dropped[f"file: {text.value}"] += 1
                continue
            filtered = source_filter.apply(text, path, source.language)
            if filtered is None:
                continue
            holes = cut_holes(filtered.structure, seed=f"{seed}/{path}", settings=mix.holes, avoid=filtered.avoid)
            if holes:
                yield _FileCuts(source, blake2b(text.encode()).digest(), filtered.secret, holes)
            else:
                dropped["file: nothing to cut"] += 1
    on_progress(Loading(what="reading files", done=len(sources), of=len(sources)))


def _choose(plans: Sequence[_FileCuts], room: int, seed: int, dropped: Counter[str]) -> Mapping[str, list[Hole]]:
    """Choose at most ``room`` of the holes, as many of each folder as far as it has them; returned by path."""
    draw = random.Random(seed)  # noqa: S311  (choice, not secrecy)
    folders: dict[str, list[tuple[str, Hole]]] = {}
    for plan in plans:
        path = plan.source.path
        folders.setdefault(path.partition("/")[0], []).extend((path, hole) for hole in plan.holes)
    orders = [draw.sample(holes, len(holes)) for _folder, holes in sorted(folders.items())]
    in_turn = [each for turn in zip_longest(*orders) for each in turn if each is not None]
    dropped["example: more than asked for"] += max(0, len(in_turn) - room)
    chosen: dict[str, list[Hole]] = {}
    for path, hole in in_turn[:room]:
        chosen.setdefault(path, []).append(hole)
    return chosen


class _Writer:
    """The second pass: makes examples of what was chosen, without those that an earlier part has."""

    def __init__(self, plans: Mapping[str, _FileCuts], seed: int, mix: DataMix, dropped: Counter[str]) -> None:
        self._plans, self._seed, self._mix, self._dropped = plans, seed, mix, dropped
        self._seen: set[bytes] = set()

    def write(
        self,
        part: Split,
        chosen: Mapping[str, list[Hole]],
        visible: Sequence[str],
        on_progress: OnProgress[Loading],
    ) -> list[FillExample]:
        """Return the examples of a part, ordered by seed, with context from the ``visible`` files."""
        related = RelatedFiles(visible, self._text)
        examples: list[FillExample] = []
        earlier = frozenset(self._seen)
        for done, path in enumerate(sorted(chosen)):
            on_progress(Loading(what=f"cutting {part}", done=done, of=len(chosen)))
            text = self._text(path)
            if not text:
                self._dropped["example: its file changed meanwhile"] += len(chosen[path])
                continue
            source = self._plans[path].source
            chunks = related.chunks(path, text)
            for hole in chosen[path]:
                shown = chunks if self._with_context(path, hole) else ()
                examples.append(fill_example(text, hole, window(text, hole), path, source.language, context=shown))
        on_progress(Loading(what=f"cutting {part}", done=len(chosen), of=len(chosen)))
        kept = [each for each in examples if not self._is_repeat(each, earlier)]
        self._dropped["example: same as one held out"] += len(examples) - len(kept)
        kept.sort(key=lambda each: seeded_number(self._seed, each.id))
        return kept

    def _text(self, path: str) -> str:
        """Return the text as it was in the first pass, without secrets; empty if the file has changed."""
        plan = self._plans[path]
        text = read_source(plan.source)
        if isinstance(text, SkipReason) or blake2b(text.encode()).digest() != plan.digest:
            return ""
        lines = text.split("\n") if plan.secret else []
        return "\n".join("" if row in plan.secret else line for row, line in enumerate(lines)) if lines else text

    def _with_context(self, path: str, hole: Hole) -> bool:
        return seeded_number(self._seed, f"{path}:{hole.start}:{hole.end}") % 1000 < self._mix.context_share * 1000

    def _is_repeat(self, example: FillExample, earlier: frozenset[bytes]) -> bool:
        """Whether an earlier part has the same answer; short answers do not count."""
        bare = "".join(example.middle.split())
        digest = blake2b(bare.encode(), digest_size=16).digest()
        self._seen.add(digest)
        return len(bare) >= MIN_REPEAT_CHARS and digest in earlier


def fill_example(
    text: str,
    hole: Hole,
    shown: tuple[int, int],
    path: str,
    language: str,
    *,
    context: tuple[ContextChunk, ...] = (),
    learn_all: bool = False,
) -> FillExample:
    """Make an example of a hole in a file's text; ``shown`` is start and end of what it keeps of the text."""
    start, end = shown
    return FillExample(
        id=f"{path}:{text.count(chr(10), 0, hole.start) + 1}:{hole.kind}:{hole.start}",
        prefix=text[start : hole.start],
        middle=text[hole.start : hole.end],
        suffix=text[hole.end : end],
        path=path,
        language=language,
        kind=hole.kind,
        context=context,
        learn_all=learn_all,
    )


def window(text: str, hole: Hole) -> tuple[int, int]:
    """Return start and end of the text that an example keeps of its file, cut at line starts.

    At the start, lines are dropped in multiples of ``TYPED_LINES``, as in a prompt, so that the prompt has the same
    layout as with the whole file.
    """
    start = 0
    if hole.start > MAX_PREFIX_CHARS:
        start = text.find("\n", hole.start - MAX_PREFIX_CHARS) + 1
        for _line in range(-text.count("\n", 0, start) % TYPED_LINES):
            start = text.find("\n", start) + 1
        start = start if 0 < start <= hole.start else hole.start - MAX_PREFIX_CHARS
    end = text.find("\n", hole.end + MAX_SUFFIX_CHARS) + 1
    return start, end or len(text)
