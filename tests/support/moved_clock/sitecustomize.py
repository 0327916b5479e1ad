"""Loaded by each Python that has this folder on PYTHONPATH: the time of day is as far off as a file says.

A test cannot set the machine's clock. Clocks that only go forward stay as they are, as they do when a clock is set.
"""

from __future__ import annotations

import os
import time

_time = time.time


def _moved() -> float:
    try:
        with open(os.environ["MOVED_CLOCK"]) as file:  # noqa: PTH123  (nothing else is loaded yet)
            return _time() + float(file.read() or 0)
    except (KeyError, OSError):
        return _time()


time.time = _moved
