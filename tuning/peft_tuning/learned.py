"""What an adapter has learned: so that the next run begins with other documents, and no evaluation asks for it.

A document is known by a hash of its text, a question or a line of an answer by a shorter one. The lists of an adapter
lie in the data folder, by its digest; a run that begins with the adapter adds its own to them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import msgspec

from peft_core.errors import PeftDaemonError
from peft_core.files import private_folder, write_private
from peft_core.paths import Paths
from peft_tuning.data.examples import DataSet, EditExample, Example, FillExample, normalized

MIN_LINE_CHARS = 16
"""Characters without white space from which on a line is hardly written twice by chance."""


def document_digest(example: FillExample) -> str:
    """Return the hash of a document's text; where its hole is does not matter."""
    text = example.prefix + example.middle + example.suffix
    return blake2b(text.encode(), digest_size=8).hexdigest()


def documents_learned(paths: Paths, adapter_digest: str) -> frozenset[str]:
    """Return the hashes of what an adapter has learned; none if that was not recorded or cannot be read."""
    return _read(_file(paths, adapter_digest))


def record_learned(paths: Paths, adapter_digest: str, examples: Iterable[Example], before: frozenset[str]) -> None:
    """Note what an adapter has learned, with what was learned ``before`` by the one that it began with.

    A disk that is full only makes the next run learn the same again.
    """
    own = {document_digest(each) for each in examples if isinstance(each, FillExample) and each.learn_all}
    if own:
        _write(_file(paths, adapter_digest), own | before)


def examples_seen(paths: Paths, adapter_digest: str) -> frozenset[str]:
    """Return the marks of all examples that an adapter was tuned on; none if that was not recorded."""
    return _read(_seen_file(paths, adapter_digest))


def record_seen(paths: Paths, adapter_digest: str, examples: Iterable[Example], before: frozenset[str]) -> None:
    """Note the examples that an adapter was tuned on, with those ``before`` of the one that it began with."""
    own = {mark for each in examples for mark in _marks(each, whole=isinstance(each, FillExample) and each.learn_all)}
    if own or before:
        _write(_seen_file(paths, adapter_digest), own | before)


def without_seen(data: DataSet, seen: Collection[str]) -> DataSet:
    """Return the data without held-out examples that are among what was tuned on: they could judge nothing."""
    if not seen:
        return data
    validation = tuple(each for each in data.validation if not is_seen(each, seen))
    test = tuple(each for each in data.test if not is_seen(each, seen))
    count = len(data.validation) + len(data.test) - len(validation) - len(test)
    if not count:
        return data
    dropped = {**data.dropped, "held out, but an adapter in use has learned it": count}
    return replace(data, validation=validation, test=test, dropped=dropped)


def is_seen(example: Example, seen: Collection[str]) -> bool:
    """Return whether a question, or all long lines of what belongs into a hole, are among what was tuned on."""
    marks = set(_marks(example, whole=False))
    return bool(marks) and all(mark in seen for mark in marks)


def _marks(example: Example, *, whole: bool) -> Iterator[str]:
    """Yield the hash of a question, of an edit's id, or of each long line of a hole's answer or ``whole`` document."""
    if isinstance(example, EditExample):
        yield _mark(example.id)
        return
    if not isinstance(example, FillExample):
        yield _mark(normalized(example.intent))
        return
    before, after = example.prefix, example.suffix
    text = before + example.middle + after
    if not whole:
        text = before[before.rfind("\n") + 1 :] + example.middle + after.partition("\n")[0]
    for line in text.split("\n"):
        bare = "".join(line.split())
        if len(bare) >= MIN_LINE_CHARS:
            yield _mark(bare)


def _mark(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _read(file: Path) -> frozenset[str]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return frozenset(msgspec.json.decode(file.read_bytes(), type=list[str]))
    return frozenset()


def _write(file: Path, hashes: Collection[str]) -> None:
    with contextlib.suppress(OSError, PeftDaemonError):
        private_folder(file.parent)
        write_private(file, msgspec.json.encode(sorted(hashes)))


def _file(paths: Paths, adapter_digest: str) -> Path:
    return paths.data / "learned" / f"{adapter_digest}.json"


def _seen_file(paths: Paths, adapter_digest: str) -> Path:
    return paths.data / "learned" / f"{adapter_digest}.seen.json"
