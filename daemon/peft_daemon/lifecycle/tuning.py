"""That a tuning run is under way on this machine: written by the run, read by ``status``.

A notice, not a lock: several runs may go on at the same time, the newest is told of.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from peft_core.files import read_private, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity


class TuningNotice(msgspec.Struct, frozen=True):
    """Which run it is, and which process does it."""

    name: str
    process: ProcessIdentity
    started: float
    """Seconds since the epoch."""


@contextlib.contextmanager
def tuning_noticed(paths: Paths, name: str) -> Iterator[None]:
    """Say for the duration of the block that ``name`` is being tuned by this process."""
    require_private_folder(paths.runtime)
    notice = TuningNotice(name, ProcessIdentity.current(), time.time())
    write_private(_file(paths), msgspec.json.encode(notice))
    try:
        yield
    finally:
        if running_tuning(paths) == notice:
            _file(paths).unlink(missing_ok=True)


def running_tuning(paths: Paths) -> TuningNotice | None:
    """The run that is under way; None when there is none, or its process ended without a word."""
    if (written := read_private(_file(paths))) is None:
        return None
    try:
        notice = msgspec.json.decode(written, type=TuningNotice)
    except (ValueError, RecursionError):
        return None
    return notice if notice.process.find() is not None else None


def _file(paths: Paths) -> Path:
    return paths.runtime / "tuning.json"
