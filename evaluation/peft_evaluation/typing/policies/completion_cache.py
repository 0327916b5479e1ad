"""llama.vscode's cache of answers: the least recently used goes, and a look-up also tries what was typed less of.

Re-created from lru-cache.ts and completion.ts (getCachedCompletion).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """What an answer was given for."""

    prefix: str
    """The lines above the cursor's."""
    suffix: str
    """The rest of its line and the lines below."""
    prompt: str
    """The line up to the cursor."""


class CompletionCache:
    """Answers by what was asked."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[Key, str] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._answers

    def get(self, key: Key) -> str | None:
        """The answer, or the rest of one given when less of the line was typed and that goes on as it was typed."""
        for length in range(len(key.prompt), -1, -1):
            typed = key.prompt[length:]
            earlier = Key(key.prefix, key.suffix, key.prompt[:length])
            answer = self._answers.get(earlier)
            if answer is not None and answer.startswith(typed):
                self._answers.move_to_end(earlier)
                return answer[len(typed) :]
        return None

    def put(self, key: Key, answer: str) -> None:
        """Keep an answer."""
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._capacity:
            self._answers.popitem(last=False)
