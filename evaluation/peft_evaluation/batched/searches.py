"""What becomes of a prompt: one answer written token by token, or the likeliest several by beam search.

A search owns one row of states or more. It is shown the logits of its rows, and says which row goes on with which
token. It computes nothing else, so that many searches can share a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Moves = Sequence[tuple[int, int]]
"""Which of its rows go on, each with which token: a row may be named several times, or not at all."""


class Search(Protocol):
    """See the module."""

    @property
    def width(self) -> int:
        """The most rows it ever has."""

    @property
    def max_tokens(self) -> int:
        """The most tokens a row grows by."""

    def advance(self, logits: Tensor) -> Moves:
        """What to do next, given the logits (float32) after each of its rows; nothing: it is over."""


class Writing:
    """One answer. What a token means for it is for ``take`` to say: whether there is to be another."""

    width = 1

    def __init__(self, take: Callable[[Tensor], int | None], *, max_tokens: int) -> None:
        """``take`` is given the logits after the last token, and returns the next one, or None at the end."""
        self._take, self.max_tokens = take, max_tokens

    def advance(self, logits: Tensor) -> Moves:
        """See ``Search``."""
        token = self._take(logits[0])
        return () if token is None else ((0, token),)


class BeamSearch:
    """The likeliest answers, by log-probability divided by length; transformers' search with its default settings.

    An answer also ends where ``over`` says so of its tokens, the last of which is new.
    """

    def __init__(
        self, width: int, *, max_tokens: int, ends: frozenset[int], over: Callable[[Sequence[int]], bool]
    ) -> None:
        self.width, self.max_tokens = width, max_tokens
        self._ends, self._over = ends, over
        self._running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self.found: list[tuple[float, tuple[int, ...]]] = []
        """Score and tokens of the best answers so far, best first; the token that ended one is its last."""

    def advance(self, logits: Tensor) -> Moves:
        """See ``Search``."""
        length = len(self._running[0][1]) + 1
        running: list[tuple[float, tuple[int, ...], int]] = []
        for rank, (score, row, token) in enumerate(self._candidates(logits)):
            if rank >= self.width and len(running) == self.width:
                break
            tokens = (*self._running[row][1], token)
            if token in self._ends or length == self.max_tokens or self._over(tokens):
                # One beyond the beams is not a find, and does not take the place of one that goes on.
                if rank < self.width:
                    self.found.append((score / length, tokens))
            elif len(running) < self.width:
                running.append((score, tokens, row))
        self.found = sorted(self.found, key=lambda each: -each[0])[: self.width]
        self._running = [(score, tokens) for score, tokens, _ in running]
        if not running or (len(self.found) == self.width and running[0][0] / length <= self.found[-1][0]):
            return ()
        return [(row, tokens[-1]) for _, tokens, row in running]

    def _candidates(self, logits: Tensor) -> list[tuple[float, int, int]]:
        """Score, row and token of all that may be among the best, best first."""
        each = min(2 * self.width + len(self._ends), logits.shape[1])
        best = logits.log_softmax(-1).topk(each)
        so_far = torch.tensor([score for score, _ in self._running], device=logits.device)
        scores, order = (best.values + so_far[:, None]).flatten().sort(descending=True, stable=True)
        tokens = best.indices.flatten()[order]
        return list(zip(scores.tolist(), (order // each).tolist(), tokens.tolist(), strict=True))
