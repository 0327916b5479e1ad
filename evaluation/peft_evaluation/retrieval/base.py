"""What a retriever does, and how ties are broken. Does not cover what is done with the neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Retriever(Protocol):
    """Ranks texts by likeness to a question."""

    @property
    def id(self) -> str:
        """As strategies name it."""

    @property
    def version(self) -> str:
        """What it is made of, for the record."""

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """For each question the indices of the ``k`` texts of the pool most like it, most similar first."""


def best(scores: NDArray[np.floating], k: int) -> tuple[int, ...]:
    """Indices of the ``k`` highest scores, highest first; of equals the earlier text."""
    return tuple(int(index) for index in np.argsort(-scores, kind="stable")[:k])
