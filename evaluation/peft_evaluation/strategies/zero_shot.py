"""The question alone."""

from __future__ import annotations

from peft_evaluation.strategies.base import Strategy


def zero_shot() -> Strategy:
    """The base model as it is served without any adapter."""
    return Strategy(id="zero-shot")
