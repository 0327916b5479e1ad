"""Selection of code from other files for a cursor: signatures that its file uses, recent edits, and similar passages.

Chunks look like those that adapters were tuned with; see ``code.imports``. Sizes are in characters. The same query to
the same index gives the same chunks.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from peft_core.api_types import ContextChunk
from peft_core.code.imports import RelatedFiles, Signature
from peft_core.code.languages import language_of
from peft_core.privacy.values import masked
from peft_daemon.context.index import Index, Passage, find_definitions, split_passages, split_words

CHARACTERS_PER_TOKEN = 3.2
NAME_LINES_BEFORE, NAME_LINES_AFTER = 40, 12
"""Lines around the cursor whose names count for the choice of signatures."""
NEAREST_LINES = 6
"""Names in this many lines before the cursor count three times."""
QUERY_LINES_BEFORE, QUERY_LINES_AFTER = 6, 2
"""Lines around the cursor that passages are compared with."""
EXTRA_PASSAGE_LINES = 6
"""Lines after a passage that are shown with it: what follows similar code is probably what is wanted here."""
MIN_SHARED_WORDS = 3
"""Words that a passage must share with the lines around the cursor."""
MAX_PASSAGES = 6
MAX_DEFINING_FILES = 2
"""A name that more files define is ambiguous, and ignored."""
MAX_OUTLINED_FILES = 8
"""Files whose signatures are considered: those whose names occur most often near the cursor."""
MIN_CHUNK_CHARACTERS = 40
"""A chunk that would be cut shorter is left out."""
_NAME = re.compile(r"[^\W\d]\w{2,}")
_TOP_LEVEL_CLASS = re.compile(r"^class[ \t]+\w+[ \t]*\(([^()]{1,200})\)", re.MULTILINE)
_OWN_NAME = re.compile(r"\b(?:def|class|function|func|fn|struct|enum|trait|interface|type)\s+(?:\([^)]*\)\s*)?(\w+)")


@dataclass(frozen=True)
class SelectionQuery:
    """A cursor: the file's path relative to the workspace, and the text on both sides, with ``\\n`` line ends."""

    path: str
    before: str
    after: str
    shown_before: int = sys.maxsize
    """Characters before the cursor that the prompt shows in any case; the file's other lines may be selected."""
    shown_after: int = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class SelectionLimits:
    """How many characters each kind of chunk may take; the next kind may also use what one leaves over."""

    signatures: int
    edits: int
    passages: int

    @classmethod
    def of_tokens(cls, tokens: int) -> SelectionLimits:
        """Return the limits that gave the best results for this number of tokens; see docs/context.md."""
        room = int(tokens * CHARACTERS_PER_TOKEN)
        return cls(signatures=room // 2, edits=room // 4, passages=room - room // 2 - room // 4)


def select_chunks(
    index: Index, related: RelatedFiles, query: SelectionQuery, edits: Sequence[ContextChunk], limits: SelectionLimits
) -> tuple[ContextChunk, ...]:
    """Select the chunks for a cursor from other files, with secrets masked; ``edits`` are newest first."""
    chosen: list[ContextChunk] = []
    room = 0
    for share, kind in (
        (limits.signatures, select_signatures(index, related, query, limits.signatures)),
        (limits.edits, iter([each for each in edits if each.path != query.path])),
        (limits.passages, select_passages(index, query)),
    ):
        room += share
        for chunk in kind if share else ():
            if _overlaps(chunk, chosen):
                continue
            fitting = _cut(chunk, room)
            if fitting is None:
                break
            room -= _size(fitting)
            chosen.append(fitting)
    return tuple(ContextChunk(each.path, masked(each.text)) for each in chosen)


def select_signatures(index: Index, related: RelatedFiles, query: SelectionQuery, room: int) -> Iterator[ContextChunk]:
    """Select signatures of what the file imports and of what the lines near the cursor name, the best that fit.

    There is one chunk for each file, in the order of the imports, with its signatures in the order of the file.
    """
    near = _names_near(query)
    candidates = list(_candidates(index, related, query, near))
    ranked = sorted(
        range(len(candidates)), key=lambda at: (-_relevance(candidates[at].signature, near), candidates[at].file, at)
    )
    taken: set[int] = set()
    headed: set[str] = set()
    for at in ranked:
        candidate = candidates[at]
        cost = len(candidate.signature.text) + 1
        cost += 0 if candidate.path in headed else len(candidate.path) + 4
        if cost <= room:
            room -= cost
            taken.add(at)
            headed.add(candidate.path)
    files: dict[str, list[str]] = {}
    for at, candidate in enumerate(candidates):
        if at in taken:
            files.setdefault(candidate.path, []).append(candidate.signature.text)
    for path, lines in files.items():
        yield ContextChunk(path, "\n".join(lines))


def select_passages(index: Index, query: SelectionQuery) -> Iterator[ContextChunk]:
    """Select the passages that are most similar to the lines around the cursor, best first.

    They are of other files, and of those lines of the cursor's own file that the prompt does not show.
    """
    before, after = query.before.split("\n")[-QUERY_LINES_BEFORE:], query.after.split("\n")[:QUERY_LINES_AFTER]
    words = split_words("\n".join((*before, *after)))
    language = language_of(query.path)
    hidden = _hidden_lines(query)
    own = [Passage(query.path, *rows, 0.0) for rows in split_passages(hidden)]
    own_words = [split_words("\n".join(hidden[each.start : each.end])) for each in own]
    scores = index.score(words, own_words, min_shared=MIN_SHARED_WORDS) if own else []
    found = [replace(each, score=score) for each, score in zip(own, scores, strict=True) if score]
    found += index.search(words, MAX_PASSAGES, min_shared=MIN_SHARED_WORDS, exclude=query.path)
    shown: dict[str, list[range]] = {}
    for passage in sorted(found, key=lambda each: -each.score)[:MAX_PASSAGES]:
        rows = range(passage.start, passage.end + EXTRA_PASSAGE_LINES)
        overlaps = any(rows.start < other.stop and other.start < rows.stop for other in shown.get(passage.path, ()))
        if overlaps or language_of(passage.path) != language:
            continue
        if passage.path == query.path:
            text = "\n".join(hidden[rows.start : rows.stop]).rstrip()
        else:
            text = index.passage_text(passage, EXTRA_PASSAGE_LINES)
        if text:
            shown.setdefault(passage.path, []).append(rows)
            yield ContextChunk(passage.path, text)


def _hidden_lines(query: SelectionQuery) -> list[str]:
    """Return the whole lines of the cursor's file that are not shown, with a blank line for what is."""
    before = query.before[: max(0, len(query.before) - query.shown_before)].rpartition("\n")[0]
    after = query.after[query.shown_after :].partition("\n")[2]
    return [*before.split("\n"), "", *after.split("\n")]


@dataclass(frozen=True)
class _Candidate:
    path: str
    file: int
    """Number of the file in the order of imports."""
    signature: Signature


def _candidates(index: Index, related: RelatedFiles, query: SelectionQuery, near: Counter[str]) -> Iterator[_Candidate]:
    """Yield the signatures that may be shown, those of one file together, none twice."""
    wanted = _wanted_names(index, related, query, near)
    promising = sorted(wanted, key=lambda path: -sum(near[name] for name in wanted[path] or {_stem(path)}))
    for number, path in enumerate(path for path in wanted if path in promising[:MAX_OUTLINED_FILES]):
        names = wanted[path]
        for one in dict.fromkeys(index.outline(path)):
            if not names or one.name in names or _own_name(one) in names:
                yield _Candidate(path, number, one)


def _wanted_names(
    index: Index, related: RelatedFiles, query: SelectionQuery, near: Counter[str]
) -> dict[str, set[str]]:
    """Return the names that are wanted from other files, by path; an empty set means all names of the file.

    Imported names come first, in their order; then names near the cursor that one other file defines.
    """
    wanted: dict[str, set[str]] = {}
    for each in related.find(query.path, query.before + query.after):
        if not each.names:
            wanted[each.path] = set()
        for name in sorted(each.names):
            # A package often re-exports what one of its modules defines.
            elsewhere = None if each.path in index.files_defining(name) else _defining_file(index, name, query.path)
            wanted.setdefault(elsewhere or each.path, set()).add(name)
    known = {
        *find_definitions(query.before + query.after),
        *(name for names in wanted.values() for name in names),
    }
    for name, _count in near.most_common():
        path = None if name in known else _defining_file(index, name, query.path)
        if path and (path not in wanted or wanted[path]):
            wanted.setdefault(path, set()).add(name)
    return wanted


def _defining_file(index: Index, name: str, path: str) -> str | None:
    """Return the nearest file in the language of ``path`` that defines ``name``; None if too many do."""
    language = language_of(path)
    found = [each for each in index.files_defining(name) if each != path and language_of(each) == language]
    if not 1 <= len(found) <= MAX_DEFINING_FILES:
        return None
    return min(found, key=lambda each: (-len(posixpath.commonprefix([each, path])), each))


def _stem(path: str) -> str:
    return posixpath.basename(path).rpartition(".")[0]


def _names_near(query: SelectionQuery) -> Counter[str]:
    before = query.before.split("\n")[-NAME_LINES_BEFORE:]
    found = Counter(_NAME.findall("\n".join((*before, *query.after.split("\n")[:NAME_LINES_AFTER]))))
    for name in _NAME.findall("\n".join(before[-NEAREST_LINES:])):
        found[name] += 2
    for name in _base_classes(query.before):
        found[name] += 3
    return found


def _base_classes(before: str) -> list[str]:
    """Return the bases of the class around the cursor, whose methods may be called or overridden."""
    match = _TOP_LEVEL_CLASS.search(before, before.rfind("\nclass ") + 1)
    return _NAME.findall(match[1]) if match else []


def _relevance(signature: Signature, near: Counter[str]) -> float:
    own = _own_name(signature)
    return min(near[signature.name], 5) + 2.0 * min(near[own], 5) * (own != signature.name)


def _own_name(signature: Signature) -> str:
    match = _OWN_NAME.search(signature.text)
    return match[1] if match else signature.name


def _overlaps(chunk: ContextChunk, chosen: Sequence[ContextChunk]) -> bool:
    """Whether more than half of a chunk's lines are in ``chosen``."""
    lines = {line.strip() for line in chunk.text.split("\n") if line.strip()}
    shown = {line.strip() for each in chosen for line in each.text.split("\n")}
    return len(lines & shown) > len(lines) / 2


def _cut(chunk: ContextChunk, room: int) -> ContextChunk | None:
    """Return the first lines of a chunk that fit into ``room``; None if that is too little."""
    room -= len(chunk.path) + 4
    if len(chunk.text) <= room:
        return chunk
    text = chunk.text[: max(room, 0)].rpartition("\n")[0]
    return ContextChunk(chunk.path, text) if len(text) >= MIN_CHUNK_CHARACTERS else None


def _size(chunk: ContextChunk) -> int:
    return len(chunk.path) + 4 + len(chunk.text)
