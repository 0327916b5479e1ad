"""Which documents of a repository an adapter has learned, so that the next run begins with the others.

A document is known by a hash of its text. The list of an adapter lies in the data folder, by its digest; a run that
begins with the adapter adds its own documents to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import msgspec

from peft_core.errors import UnusablePath
from peft_core.files import private_folder, write_private
from peft_core.paths import Paths
from peft_tuning.data.examples import Example, FillExample


def document_digest(example: FillExample) -> str:
    """Return the hash of a document's text; where its hole is does not matter."""
    text = example.prefix + example.middle + example.suffix
    return blake2b(text.encode(), digest_size=8).hexdigest()


def documents_learned(paths: Paths, adapter_digest: str) -> frozenset[str]:
    """Return the hashes of what an adapter has learned; none if that was not recorded or cannot be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return frozenset(msgspec.json.decode(_file(paths, adapter_digest).read_bytes(), type=list[str]))
    return frozenset()


def record_learned(paths: Paths, adapter_digest: str, examples: Iterable[Example], before: frozenset[str]) -> None:
    """Note what an adapter has learned, with what was learned ``before`` by the one that it began with.

    A disk that is full only makes the next run learn the same again.
    """
    own = {document_digest(each) for each in examples if isinstance(each, FillExample) and each.learn_all}
    if not own:
        return
    with contextlib.suppress(OSError, UnusablePath):
        file = _file(paths, adapter_digest)
        private_folder(file.parent)
        write_private(file, msgspec.json.encode(sorted(own | before)))


def _file(paths: Paths, adapter_digest: str) -> Path:
    return paths.data / "learned" / f"{adapter_digest}.json"
