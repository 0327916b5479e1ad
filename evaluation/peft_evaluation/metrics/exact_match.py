"""EM@k as the study has it: the reference is among the k best beams, white space aside (arXiv 2308.10462).

Not the pass@k estimator: nothing is drawn, so there is nothing to estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

KS = (1, 2, 5, 10)


def exact_match(candidates: Sequence[str], reference: str) -> Mapping[str, float]:
    """``em@k`` for each k of ``KS`` for which there are that many candidates: 0 or 1."""
    wanted = normalized(reference)
    hits = [normalized(candidate) == wanted for candidate in candidates]
    return {f"em@{k}": float(any(hits[:k])) for k in KS if k <= len(hits)}


def normalized(code: str) -> str:
    """All runs of white space as one space, none at the ends."""
    return " ".join(code.split())
