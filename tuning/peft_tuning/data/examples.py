"""What a model is tuned on: sentences with their code, and holes with what belongs in them.

Only values. Where they come from is in ``datasets`` and ``repository``; how they are written down for a model is in
``encoding``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from peft_core.api_types import ContextChunk


class HoleKind(StrEnum):
    """What was cut out of a file."""

    TOKEN = "token"  # noqa: S105  (a kind of hole)
    LINE = "line"
    BLOCK = "block"
    BODY = "body"
    """A whole function body."""


@dataclass(frozen=True, kw_only=True)
class IntentExample:
    """A sentence and the code it asks for."""

    id: str
    """Where it comes from, unique in its data set: ``conala/train/17``, ``src/app.py:load``."""
    intent: str
    code: str
    language: str = "python"


@dataclass(frozen=True, kw_only=True)
class FillExample:
    """A file with a hole, and what belongs there."""

    id: str
    prefix: str
    suffix: str
    middle: str
    path: str = ""
    language: str = "python"
    kind: HoleKind = HoleKind.LINE
    context: tuple[ContextChunk, ...] = ()
    """Related files, most useful first, as completion would be given them."""


Example = IntentExample | FillExample


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Examples in three disjoint parts, and how they came to be."""

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    """Chooses the best checkpoint."""
    test: tuple[Example, ...] = ()
    """Never seen while tuning."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    licence: str = "unknown"
    provenance: str = ""
    """Where the rows come from: file names, revision, split rule; for the model card."""
    prompt_tokens: int = 1024
    """Longest prompt the study allows for it; longer ones are cut as completion would (fill) or dropped (intent)."""
    response_tokens: int = 256
    """Longest answer; longer examples are dropped."""

    @property
    def digest(self) -> str:
        """sha256 of what is trained on and chosen by: training and validation examples, in order."""
        return examples_digest((*self.train, *self.validation))


def examples_digest(examples: Sequence[Example]) -> str:
    """sha256 over the examples' fields, in order."""
    sha = hashlib.sha256()
    encoder = msgspec.json.Encoder(order="deterministic")
    for example in examples:
        sha.update(encoder.encode(example))
        sha.update(b"\n")
    return sha.hexdigest()
