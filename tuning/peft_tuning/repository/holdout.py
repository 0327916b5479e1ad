"""Who may see what: whole files are held out, the newest first, so that the test asks for code the model has not met.

Where there is history a file is as new as the last commit that touched it; files of one age (a first commit, a folder
without history) are in an order drawn by seed. That no function is on both sides is the business of ``dataset``,
which keeps one file of each near-duplicate pair and cuts no hole in a copy of a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum


class Part(StrEnum):
    """A part of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


TOLERANCE = 1.5
"""A part may outgrow its share by so much; a file that would make it larger is left to training."""


def newest_first(paths: Sequence[str], times: Mapping[str, int], seed: int) -> list[str]:
    """Paths by the time they last changed (seconds; 0 where it is not known), those of one time drawn by ``seed``."""
    return sorted(paths, key=lambda path: (-times.get(path, 0), drawn(seed, path), path))


def split(weights: Mapping[str, int], *, validation: float, test: float) -> Mapping[str, Part]:
    """The part of each path, from paths in order of age (newest first) with the examples each has.

    ``validation`` and ``test`` are parts of all examples, above 0. With three files or more no part is empty.
    """
    parts = dict.fromkeys(weights, Part.TRAIN)
    total = sum(weights.values())
    for part, share, others in ((Part.TEST, test, 2), (Part.VALIDATION, validation, 1)):
        target, taken = share * total, 0
        free = [path for path in weights if parts[path] is Part.TRAIN]
        left = len(free) - others
        for path in free:
            if taken >= target or not left:
                break
            if taken + weights[path] <= target * TOLERANCE:
                parts[path] = part
                taken += weights[path]
                left -= 1
        if not taken and len(free) > others:
            parts[min(free, key=lambda path: weights[path])] = part
    return parts


def drawn(seed: int, text: str) -> int:
    """A number that looks random, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest(), "big")
