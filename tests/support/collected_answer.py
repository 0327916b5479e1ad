"""The chunks of one answer, put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from peft_daemon.engines.base import GenerationChunk


@dataclass
class Answer:
    """What a generation said: all of its text and log-probabilities, and its last chunk."""

    text: str = ""
    logprobs: list[float] = field(default_factory=list)
    last: GenerationChunk = field(default_factory=GenerationChunk)

    @classmethod
    def of(cls, chunks: Iterable[GenerationChunk]) -> Answer:
        """Take all chunks."""
        answer = cls()
        for chunk in chunks:
            answer.text += chunk.text
            answer.logprobs += [each.logprob for each in chunk.logprobs]
            answer.last = chunk
        return answer
