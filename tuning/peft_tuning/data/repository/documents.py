"""Make a data set that teaches a repository as a whole: documents of its code, the most important first.

A document is a piece of a source file with one hole. Tuning learns the text around the hole too, so that every token
counts. What is learned is the tree before the newest commits; holes in the lines that those commits added judge it
(``held_out``). Documents of Python's own library are mixed in, so that the model keeps what it knew before.

The same commits, seed and settings give the same data set. A tuning run with little time takes the first documents.
"""

from __future__ import annotations

import re
import shlex
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detect_secrets.plugins.base import BasePlugin

from peft_core.code.document import leading_space, width
from peft_core.code.files import SkipReason, SourceFile, SourceListing, read_source
from peft_core.code.history import change_counts
from peft_core.code.structure import Span, Structure, parse_structure
from peft_core.errors import InvalidInput
from peft_core.tasks import OnProgress
from peft_tuning.data.examples import DataSet, FillExample, HoleKind, seeded_number
from peft_tuning.data.repository.dataset import MIN_FILES, fill_example
from peft_tuning.data.repository.files import licence_of, repository_files, source_files
from peft_tuning.data.repository.filters import SourceFilter, detectors
from peft_tuning.data.repository.held_out import (
    LINES_PER_HOLE,
    DividedCode,
    HeldOutHoles,
    divide_by_commits,
    divide_by_files,
)
from peft_tuning.data.repository.holes import Hole, HoleSettings, cut_hole_in_each
from peft_tuning.data.repository.importance import NameUses, most_important_first
from peft_tuning.events import Loading, ignore

DOCUMENT_CHARS = 1_400
"""Most characters of a document, unless one line is longer: with its answer it has about 512 tokens."""
MIN_DOCUMENT_CHARS = 600
"""A document is not cut shorter than this to end at a better place."""
HOLES = HoleSettings(
    shares={
        **{HoleKind.LINE: 0.38, HoleKind.BLOCK: 0.29},
        **{HoleKind.CALL: 0.15, HoleKind.TOKEN: 0.09, HoleKind.BODY: 0.09},
    },
    max_chars=600,
)
"""The kinds of holes that completion meets."""
ANSWER_TOKENS = 96
"""Longest answer of a held-out hole, the same as in an editor."""
HELD_OUT_HOLES = 96
"""Holes in validation, and in test. With fewer, a run would learn code that others are judged by."""
MIN_HELD_OUT_HOLES = 8
"""Fewer holes in the lines of the newest commits cannot judge; files are held out instead."""
ACCEPTED_SHARE = 0.25
"""Largest share of the repository's own documents that are accepted suggestions."""
SEEN = "hole: an adapter in use has learned it"
"""Why a hole does not judge."""
LIBRARY = "python-library/"
"""Beginning of the paths of Python's own library."""
LIBRARY_LICENCE = "PSF-2.0"
LIBRARY_FILE_DOCUMENTS = 6
"""Documents that are taken of one file of the library; more only if there are too few files."""
_NOT_LEARNED = (
    *("test/", "tests/", "idlelib/", "lib2to3/", "encodings/", "pydoc_data/", "turtledemo/", "ensurepip/"),
    *("site-packages/", "dist-packages/", "/config-*/", "/lib-dynload/"),
)
"""Parts of Python's library that are no good examples: tests, tables, copies."""


def learning_data_set(
    root: Path,
    *,
    seed: int,
    max_documents: int,
    held_out_holes: int = HELD_OUT_HOLES,
    replay_share: float = 0.2,
    is_learned: Callable[[FillExample], bool] = lambda document: False,
    is_seen: Callable[[FillExample], bool] = lambda hole: False,
    accepted: Sequence[FillExample] = (),
    on_progress: OnProgress[Loading] = ignore,
) -> DataSet:
    """Make documents of the code below ``root``, and holes that judge what was learned.

    ``max_documents`` is the most training examples; ``replay_share`` of them (0 to below 1) are of Python's own
    library. Documents that are learned already come last; holes whose lines were seen already, by what the run begins
    with or is compared with, judge nothing. ``accepted`` are suggestions that the user accepted there, which come first
    unless they hold what judges. ``held_out_holes`` is the most holes in validation, and in test. Where the
    newest commits do not give enough holes (no commits, a shallow clone, a first commit with all code), the newest
    files are held out; ``provenance`` says which.

    Raises InvalidInput if there is no git work tree, too little code, a number is out of range, or
    ``.peft-daemon.toml`` is invalid; Unavailable without git.
    """
    if max_documents < MIN_FILES or held_out_holes < 1 or not 0 <= replay_share < 1:
        raise InvalidInput(
            f"cannot make {max_documents} documents, {replay_share:.0%} of them general, and {held_out_holes} holes",
            why=f"{MIN_FILES} documents and 1 hole are the least, and some documents must be the repository's own",
            fix="Ask for more",
        )
    listing = repository_files(root)
    root = root.resolve()
    dropped = Counter({f"file: {reason}": count for reason, count in listing.skipped.items()})
    with detectors() as plugins:
        maker = _Maker(
            root, seed, held_out_holes=held_out_holes, plugins=plugins, is_seen=is_seen, on_progress=on_progress
        )
        made = maker.by_commits(listing, dropped) or maker.by_files(listing, dropped)
        own_room = max_documents - round(max_documents * replay_share)
        taught = [
            _as_document(each)
            for each in accepted
            if not is_learned(each) and not made.holes.answered_by(each.prefix + each.middle + each.suffix)
        ][: round(own_room * ACCEPTED_SHARE)]
        own, left = maker.documents(made, own_room - len(taught), is_learned)
        own = [*taught, *own]
    general = library_documents(round(len(own) * replay_share / (1 - replay_share)), seed)
    if left:
        made.dropped["document: more than asked for, about"] += left
    name = root.name or "repository"
    if not (own and made.validation and made.test):
        raise InvalidInput(
            f"too little code in {name}: {len(own)} documents, and {len(made.validation) + len(made.test)} holes",
            why=_reasons(made.dropped) or "there are no files",
            fix=(
                f"Commit more code, or compare with the base: `peft-daemon adapters use base --task fill --repository "
                f"{shlex.quote(str(root))}`"
                if own and made.dropped[SEEN]
                else "Add files with `git add`, loosen the ignore rules, or use a data set: `peft-daemon datasets list`"
            ),
        )
    return DataSet(
        name=name,
        train=tuple(_spread(own, general)),
        validation=made.validation,
        test=made.test,
        dropped=dict(sorted((+made.dropped).items())),
        licence=licence_of(root),
        tree=made.code.tree,
        provenance=(
            f"{made.code.origin}; {len(own)} of {'about ' if left else ''}{len(own) + left} documents; "
            f"{f'{len(taught)} of them accepted suggestions; ' if taught else ''}"
            f"{len(general)} documents of Python's library ({LIBRARY_LICENCE}); seed {seed}"
        ),
    )


@dataclass(frozen=True)
class _Survey:
    """What one pass over the learned files found out."""

    code: DividedCode
    holes: HeldOutHoles
    validation: tuple[FillExample, ...]
    test: tuple[FillExample, ...]
    order: tuple[SourceFile, ...]
    """The files to learn, the most important first."""
    chars: tuple[int, ...]
    """The length of each of them."""
    source_filter: SourceFilter
    dropped: Counter[str]


class _Maker:
    """Makes the parts of a data set from divided code."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        held_out_holes: int,
        plugins: tuple[BasePlugin, ...],
        is_seen: Callable[[FillExample], bool],
        on_progress: OnProgress[Loading],
    ) -> None:
        self._root, self._seed, self._plugins, self._on_progress = root, seed, plugins, on_progress
        self._holes, self._is_seen = held_out_holes, is_seen

    def by_commits(self, listing: SourceListing, dropped: Counter[str]) -> _Survey | None:
        """Hold out lines of the newest commits; None if there are not enough of them to judge by."""
        self._on_progress(Loading(what="reading the history"))
        counts = Counter(dropped)
        code = divide_by_commits(self._root, listing, lines=self._lines, dropped=counts)
        if code is None:
            return None
        # Copies are looked for among the learned files only: each held-out file is nearly one of them.
        survey = self._survey(code, counts, SourceFilter(self._plugins, Counter()), SourceFilter(self._plugins, counts))
        enough = min(MIN_HELD_OUT_HOLES, self._holes)
        return survey if survey.order and min(len(survey.validation), len(survey.test)) >= enough else None

    def by_files(self, listing: SourceListing, dropped: Counter[str]) -> _Survey:
        """Hold out the newest files. Raises InvalidInput if there are too few files."""
        code = divide_by_files(self._root, listing, lines=self._lines, seed=self._seed)
        if len(code.learned) + len(code.held_out) < MIN_FILES:
            raise InvalidInput(
                f"too little code in {self._root.name or 'repository'}: "
                f"{len(listing.files)} usable files where {MIN_FILES} are needed",
                why=_reasons(dropped) or "there are no files, and no commits with enough lines to hold out",
                fix="Add files with `git add`, loosen the ignore rules, or use a data set: `peft-daemon datasets list`",
            )
        source_filter = SourceFilter(self._plugins, dropped)
        return self._survey(code, dropped, source_filter, source_filter)

    @property
    def _lines(self) -> int:
        return 2 * self._holes * LINES_PER_HOLE

    def _survey(
        self, code: DividedCode, dropped: Counter[str], held_out_filter: SourceFilter, learned_filter: SourceFilter
    ) -> _Survey:
        """Read all learned files once: which matter most, and which held-out answers they contain."""
        holes = HeldOutHoles(code.held_out, seed=self._seed, source_filter=held_out_filter)
        dropped[SEEN] += holes.drop_seen(self._is_seen)
        uses = NameUses()
        files: dict[str, SourceFile] = {}
        chars: dict[str, int] = {}
        seen = 0
        for seen, (file, text) in enumerate(code.read(code.learned), 1):
            self._on_progress(Loading(what="reading files", done=seen - 1, of=len(code.learned)))
            if isinstance(text, SkipReason):
                dropped[f"file: {text.value}"] += 1
                continue
            files[file.path], chars[file.path] = file, len(text)
            uses.add(file.path, text, file.language)
            dropped["hole: its answer is learned"] += holes.drop_learned(text)
        self._on_progress(Loading(what="reading files", done=len(code.learned), of=len(code.learned)))
        dropped["file: newer than what is learned, or too large"] += len(code.learned) - seen
        changes = change_counts(self._root, code.commit, list(files)) if code.commit and files else {}
        order = most_important_first(list(files), changes, uses.counts())
        return _Survey(
            code,
            holes,
            *holes.parts(self._holes),
            tuple(files[path] for path in order),
            tuple(chars[path] for path in order),
            learned_filter,
            dropped,
        )

    def documents(
        self, survey: _Survey, room: int, is_learned: Callable[[FillExample], bool]
    ) -> tuple[list[FillExample], int]:
        """Return at most ``room`` documents, and about how many more there are, judged by the files left unread."""
        made: list[FillExample] = []
        again: list[FillExample] = []
        left, done_files, done_chars, done_documents = 0, 0, 0, 0
        position = {file.path: index for index, file in enumerate(survey.order)}
        for file, text in survey.code.read(survey.order):
            if len(made) >= room:
                break
            self._on_progress(Loading(what="cutting documents", done=len(made), of=room))
            done_files = position[file.path] + 1
            filtered = None
            if isinstance(text, str):
                filtered = survey.source_filter.apply(text, file.path, file.language)
            if filtered is not None:
                found = filtered.structure
                spans = document_spans(found)
                documents = list(
                    cut_documents(found, spans, file.path, file.language, seed=self._seed, avoid=filtered.avoid)
                )
                if not documents:
                    survey.dropped["file: nothing to cut"] += 1
                new: list[FillExample] = []
                for each in documents:
                    (again if is_learned(each) else new).append(each)
                left += max(0, len(new) - (room - len(made)))
                made += new[: room - len(made)]
                done_documents += len(documents)
            done_chars += survey.chars[position[file.path]]
        self._on_progress(Loading(what="cutting documents", done=len(made), of=len(made)))
        unread = sum(survey.chars[done_files:])
        left += round(unread * done_documents / done_chars if done_chars else 0)
        return [*made, *again[: room - len(made)]], left + max(0, len(again) - (room - len(made)))


def _as_document(accepted: FillExample) -> FillExample:
    """Return an accepted suggestion with as many whole lines around it as a document has, of which all is learned."""
    room = max(DOCUMENT_CHARS - len(accepted.middle), 0)
    begun = accepted.prefix.rfind("\n") + 1
    start = accepted.prefix.find("\n", max(0, len(accepted.prefix) - 2 * room // 3) - 1) + 1
    start = min(start, begun) if len(accepted.prefix) > 2 * room // 3 else 0
    prefix = accepted.prefix[start:]
    rest = max(room - len(prefix), 0)
    suffix = accepted.suffix if len(accepted.suffix) <= rest else accepted.suffix[:rest].rpartition("\n")[0] + "\n"
    return replace(accepted, prefix=prefix, suffix=suffix, learn_all=True)


def cut_documents(
    found: Structure, spans: Sequence[Span], path: str, language: str, *, seed: int, avoid: Sequence[Span] = ()
) -> Iterator[FillExample]:
    """Make a document of each of ``spans`` (see ``document_spans``), in their order; blank ones are left out.

    A piece in which no hole of code can be cut (a comment, a long docstring) has a line of its text as the hole. Only
    such a line may touch a span of ``avoid``.
    """
    holes = cut_hole_in_each(found, spans, seed=f"{seed}/{path}", settings=HOLES, avoid=avoid)
    for span, hole in zip(spans, holes, strict=True):
        if chosen := hole or _any_line(found, span, seeded_number(seed, f"{path}:{span.start}")):
            yield fill_example(found.text.text, chosen, (span.start, span.end), path, language, learn_all=True)


def document_spans(found: Structure) -> tuple[Span, ...]:
    """Divide a file into pieces of whole lines, of at most ``DOCUMENT_CHARS`` characters if lines are not longer.

    A piece ends, if possible, before a function, class or paragraph: at the line furthest left that follows a blank
    line, and among equal ones at the last. All pieces together are the file.
    """
    text = found.text
    spans: list[Span] = []
    row, rows = 0, len(text.lines)
    end = len(text.text)
    while row < rows and text.starts[row] < end:
        start = text.starts[row]
        if end - start <= DOCUMENT_CHARS:
            spans.append(Span(start, end))
            break
        limit = row + 1
        while limit < rows and text.starts[limit + 1] - start <= DOCUMENT_CHARS:
            limit += 1
        candidates = [
            below
            for below in range(row + 1, limit + 1)
            if below < rows
            and text.starts[below] - start >= MIN_DOCUMENT_CHARS
            and below not in found.opaque
            and text.lines[below].strip()
            and not text.lines[below - 1].strip()
        ]
        at = min(candidates, key=lambda below: (width(leading_space(text.lines[below])), -below), default=limit)
        spans.append(Span(start, min(text.starts[at], end)))
        row = at
    return tuple(spans)


def _any_line(found: Structure, span: Span, number: int) -> Hole | None:
    """Return a line with a word in it as a hole, chosen by ``number``; None if there is none."""
    text = found.text
    rows = range(text.row(span.start), text.row(max(span.start, span.end - 1)) + 1)
    lines = [text.content(row) for row in rows]
    usable = [line for line in lines if re.search(r"\w", text.text[line.start : line.end])]
    if not usable:
        return None
    chosen = usable[number % len(usable)]
    return Hole(HoleKind.LINE, chosen.start, chosen.end)


def library_documents(count: int, seed: int) -> list[FillExample]:
    """Cut ``count`` documents from Python's own library, a few of each file; fewer if it is not there as source.

    The modules that the gate measures forgetting with are left out.
    """
    from peft_tuning.gate import GENERAL_MODULES  # noqa: PLC0415  (it loads scipy)

    folder = Path(sysconfig.get_path("stdlib"))
    if count < 1 or not folder.is_dir():
        return []
    listing = source_files([(folder, LIBRARY_LICENCE)], [*_NOT_LEARNED, *(f"/{name}" for name in GENERAL_MODULES)])
    files = sorted(listing.files, key=lambda file: (seeded_number(seed, _below(file)), file.path))
    each = max(LIBRARY_FILE_DOCUMENTS, -(-2 * count // max(1, len(files))))
    made: list[FillExample] = []
    for file in files:
        if len(made) >= count:
            break
        text = read_source(file)
        if not isinstance(text, SkipReason):
            path = LIBRARY + _below(file)
            found = parse_structure(text, file.language)
            spans = document_spans(found)
            chosen = sorted(spans, key=lambda span: seeded_number(seed, f"{path}:{span.start}"))[:each]
            chosen.sort(key=lambda span: span.start)
            made += cut_documents(found, chosen, path, file.language, seed=seed)
    return made[:count]


def _below(file: SourceFile) -> str:
    return file.path.partition("/")[2]


def _spread(own: Sequence[FillExample], general: Sequence[FillExample]) -> Iterator[FillExample]:
    """Yield both in their order, so that every beginning of the result has the same mixture."""
    total, given = len(own) + len(general), 0
    for index in range(total):
        if (index + 1) * len(general) // total > given:
            yield general[given]
            given += 1
        else:
            yield own[index - given]


def _reasons(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted((+dropped).items()))
