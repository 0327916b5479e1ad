"""How answers are decoded: the same for every strategy of an evaluation. Only values and their checks."""

from __future__ import annotations

from dataclasses import dataclass

from peft_core.errors import InvalidInput


@dataclass(frozen=True)
class Greedy:
    """One answer, the likeliest token at each step: what is served."""

    answers = 1
    """Per item."""

    @property
    def facts(self) -> dict[str, str]:
        """For the record."""
        return {"decoding": "greedy"}


@dataclass(frozen=True)
class Samples:
    """Several answers, drawn."""

    count: int
    temperature: float = 0.6
    top_p: float = 0.95
    """Both the study's, for APPS."""

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise InvalidInput(
                f"{self.count} samples at temperature {self.temperature:g} and top-p {self.top_p:g}",
                why="there must be one at least, the temperature in (0, 2], top-p in (0, 1]",
            )

    @property
    def answers(self) -> int:
        """Per item."""
        return self.count

    @property
    def facts(self) -> dict[str, str]:
        """For the record."""
        return {
            "decoding": f"{self.count} samples",
            "temperature": f"{self.temperature:g}",
            "top_p": f"{self.top_p:g}",
        }


@dataclass(frozen=True)
class Beams:
    """The likeliest answers that beam search finds, best first; the study's for Conala and CodeAlpaca."""

    width: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 64:
            raise InvalidInput(f"{self.width} beams", why="there must be 1 to 64")

    @property
    def answers(self) -> int:
        """Per item."""
        return self.width

    @property
    def facts(self) -> dict[str, str]:
        """For the record."""
        return {"decoding": f"beam search, {self.width} beams, all returned"}


Decoding = Greedy | Samples | Beams
