"""How long a person takes between two events; seconds, drawn from log-normal distributions.

Inside a word: mean 239 ms, standard deviation 112 ms, the inter-key interval of 168,000 typists (Dhakal, Feit,
Kristensson, Oulasvirta: Observations on Typing from 136 Million Keystrokes, CHI 2018). That typing slows down where
words and lines begin is known of writers; by how much it does for programmers is this benchmark's assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

FASTEST_S = 0.05


@dataclass(frozen=True)
class Pause:
    """A log-normal distribution by its own mean and standard deviation, in seconds."""

    mean: float
    deviation: float

    def draw(self, random: Random) -> float:
        """One pause, rounded to milliseconds."""
        variance = math.log(1 + (self.deviation / self.mean) ** 2)
        drawn = random.lognormvariate(math.log(self.mean) - variance / 2, math.sqrt(variance))
        return round(min(max(drawn, FASTEST_S), 4 * self.mean), 3)


IN_WORD = Pause(0.239, 0.112)
WORD_START = Pause(0.36, 0.2)
LINE_START = Pause(0.9, 0.6)
SAME_KEY = Pause(0.13, 0.04)
"""The key before once more: backspaces in a row."""
NOTICE = Pause(0.6, 0.25)
"""Seeing a mistake, or deciding to accept or undo."""
LOOK = Pause(1.4, 0.5)
"""Finding the next place to edit."""
READ = Pause(2.2, 0.8)
"""Reading a file just opened, or thinking."""
