"""Selection of code from other files for a cursor: signatures that its file uses, recent edits, and similar passages.

A chunk looks as in the examples that adapters were tuned on: see ``code.imports``. Sizes are in characters. The same
query to the same index gives the same chunks.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft_core.api_types import ContextChunk
from peft_core.code.imports import RelatedFiles, Signature
from peft_core.code.languages import language_of
from peft_core.privacy.values import masked
from peft_daemon.context.index import Index, find_definitions, split_words

CHARACTERS_PER_TOKEN = 3.2
NEAR_BEFORE, NEAR_AFTER = 40, 12
"""Lines around the cursor whose names count ..."""
HERE = 6
"""... the last of them three times."""
ALIKE_BEFORE, ALIKE_AFTER = 6, 2
"""Lines around the cursor that passages are compared with ..."""
CONTINUED = 6
"""... and lines behind a passage that come with it: what follows code like this is what is wanted."""
MIN_SHARED_NAMES = 3
"""Words; a passage that shares fewer with them has nothing to do with them."""
MAX_PASSAGES = 6
MAX_DEFINERS = 2
"""A name that more files define than this says nothing about which is meant."""
MAX_OUTLINED = 8
"""Files whose signatures are looked at: those whose names are nearest."""
MIN_CHUNK_CHARACTERS = 40
"""Characters; a chunk that would have fewer left is not worth its heading."""
_NAME = re.compile(r"[^\W\d]\w{2,}")
_CLASS_AT_MARGIN = re.compile(r"^class[ \t]+\w+[ \t]*\(([^()]{1,200})\)", re.MULTILINE)
_OWN_NAME = re.compile(r"\b(?:def|class|function|func|fn|struct|enum|trait|interface|type)\s+(?:\([^)]*\)\s*)?(\w+)")


@dataclass(frozen=True)
class SelectionQuery:
    """A cursor: the file's path below the workspace, and its text on both sides, with ``\\n`` line ends."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class SelectionLimits:
    """How many characters each kind of chunk may take; what one leaves over the next may have, in this order."""

    signatures: int
    edits: int
    passages: int

    @classmethod
    def of_tokens(cls, tokens: int) -> SelectionLimits:
        """Return the limits that measured best for that many tokens: docs/context.md."""
        room = int(tokens * CHARACTERS_PER_TOKEN)
        return cls(signatures=room // 2, edits=room // 4, passages=room - room // 2 - room // 4)


def select_chunks(
    index: Index, related: RelatedFiles, query: SelectionQuery, edits: Sequence[ContextChunk], limits: SelectionLimits
) -> tuple[ContextChunk, ...]:
    """Select the chunks for a cursor, none of its own file, with secrets masked; ``edits`` have the newest first."""
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
    """Of what the file imports and of what the lines near the cursor name: those first that are named nearest.

    One chunk for each file, in the order of the imports; in it the signatures in the order of the file.
    """
    near = _names_near(query)
    candidates = list(_candidates(index, related, query, near))
    ranked = sorted(
        range(len(candidates)), key=lambda at: (-_worth(candidates[at].signature, near), candidates[at].file, at)
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
    """Passages of other files most like the lines around the cursor, the most alike first."""
    before, after = query.before.split("\n")[-ALIKE_BEFORE:], query.after.split("\n")[:ALIKE_AFTER]
    asked = split_words("\n".join((*before, *after)))
    language = language_of(query.path)
    shown: dict[str, list[range]] = {}
    for passage in index.neighbours(asked, MAX_PASSAGES, least=MIN_SHARED_NAMES, without=query.path):
        rows = range(passage.first, passage.last + CONTINUED)
        again = any(rows.start < other.stop and other.start < rows.stop for other in shown.get(passage.path, ()))
        if again or language_of(passage.path) != language:
            continue
        if text := index.lines(passage, CONTINUED):
            shown.setdefault(passage.path, []).append(rows)
            yield ContextChunk(passage.path, text)


@dataclass(frozen=True)
class _Candidate:
    path: str
    file: int
    """Number of the file in the order of imports."""
    signature: Signature


def _candidates(index: Index, related: RelatedFiles, query: SelectionQuery, near: Counter[str]) -> Iterator[_Candidate]:
    """Signatures that may be shown, those of one file together, none twice."""
    wanted = _wanted(index, related, query, near)
    promising = sorted(wanted, key=lambda path: -sum(near[name] for name in wanted[path] or {_stem(path)}))
    for number, path in enumerate(path for path in wanted if path in promising[:MAX_OUTLINED]):
        names = wanted[path]
        for one in dict.fromkeys(index.outline(path)):
            if not names or one.name in names or _own_name(one) in names:
                yield _Candidate(path, number, one)


def _wanted(index: Index, related: RelatedFiles, query: SelectionQuery, near: Counter[str]) -> dict[str, set[str]]:
    """The names that are wanted of other files, by their paths; an empty set is all of them.

    First what is imported, in that order; then what is named near the cursor and defined in one place elsewhere.
    """
    wanted: dict[str, set[str]] = {}
    for each in related.wanted(query.path, query.before + query.after):
        if not each.names:
            wanted[each.path] = set()
        for name in sorted(each.names):
            # A package often hands on what one of its modules defines.
            elsewhere = None if each.path in index.definers(name) else _definer(index, name, query.path)
            wanted.setdefault(elsewhere or each.path, set()).add(name)
    known = {
        *find_definitions(query.before + query.after),
        *(name for names in wanted.values() for name in names),
    }
    for name, _count in near.most_common():
        path = None if name in known else _definer(index, name, query.path)
        if path and (path not in wanted or wanted[path]):
            wanted.setdefault(path, set()).add(name)
    return wanted


def _definer(index: Index, name: str, path: str) -> str | None:
    """The file that defines a name, of the asking file's language, the nearest to it; None where many do."""
    language = language_of(path)
    found = [each for each in index.definers(name) if each != path and language_of(each) == language]
    if not 1 <= len(found) <= MAX_DEFINERS:
        return None
    return min(found, key=lambda each: (-len(posixpath.commonprefix([each, path])), each))


def _stem(path: str) -> str:
    return posixpath.basename(path).rpartition(".")[0]


def _names_near(query: SelectionQuery) -> Counter[str]:
    before = query.before.split("\n")[-NEAR_BEFORE:]
    found = Counter(_NAME.findall("\n".join((*before, *query.after.split("\n")[:NEAR_AFTER]))))
    for name in _NAME.findall("\n".join(before[-HERE:])):
        found[name] += 2
    for name in _bases(query.before):
        found[name] += 3
    return found


def _bases(before: str) -> list[str]:
    """What the class that the cursor stands in is made of: its methods may be used, or written anew."""
    match = _CLASS_AT_MARGIN.search(before, before.rfind("\nclass ") + 1)
    return _NAME.findall(match[1]) if match else []


def _worth(signature: Signature, near: Counter[str]) -> float:
    own = _own_name(signature)
    return min(near[signature.name], 5) + 2.0 * min(near[own], 5) * (own != signature.name)


def _own_name(signature: Signature) -> str:
    match = _OWN_NAME.search(signature.text)
    return match[1] if match else signature.name


def _overlaps(chunk: ContextChunk, chosen: Sequence[ContextChunk]) -> bool:
    """Whether most of a chunk's lines are shown already."""
    lines = {line.strip() for line in chunk.text.split("\n") if line.strip()}
    shown = {line.strip() for each in chosen for line in each.text.split("\n")}
    return len(lines & shown) > len(lines) / 2


def _cut(chunk: ContextChunk, room: int) -> ContextChunk | None:
    """The first lines of a chunk that there is room for; None where that is hardly any."""
    room -= len(chunk.path) + 4
    if len(chunk.text) <= room:
        return chunk
    text = chunk.text[: max(room, 0)].rpartition("\n")[0]
    return ContextChunk(chunk.path, text) if len(text) >= MIN_CHUNK_CHARACTERS else None


def _size(chunk: ContextChunk) -> int:
    return len(chunk.path) + 4 + len(chunk.text)
