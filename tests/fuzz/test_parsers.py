"""No file, however damaged or hostile, ends in anything but an error that says what to do.

Each case has a number, which gives the same change each time. ``PEFT_DAEMON_FUZZ_CASES`` is how many there are in all.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.case import Fault, attempt, run
from fuzz.seeds import content_of, seeds
from fuzz.targets import TARGETS, Target

CASES = 16_000
LONG_CASES = int(os.environ.get("PEFT_DAEMON_FUZZ_CASES", "1000000"))
pytestmark = [pytest.mark.torch, pytest.mark.timeout(1200)]


@contextmanager
def unlogged() -> Iterator[None]:
    """Log nothing: pytest would keep a line for each of a million cases."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def attacked(target: Target, folder: Path, numbers: range) -> None:
    target.prepare(folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    faults: dict[str, str] = {}
    with warnings.catch_warnings(), unlogged():
        warnings.simplefilter("ignore")
        for number in numbers:
            try:
                run(target, folder, files, number)
            except Fault as fault:
                # One of each kind: the place where it was raised, not the value.
                cause, where = fault.__cause__, ""
                trace = cause.__traceback__ if cause else None
                while trace is not None:
                    where, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
                faults.setdefault(where or str(fault), str(fault))
                if len(faults) >= 10:
                    break
    print(f"\n{len(numbers)} cases of {target.name}: {len(faults)} kinds of faults")
    assert not faults, "\n\n".join(f"{where}\n{what}" for where, what in faults.items())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_changed_file_is_refused_or_read_and_nothing_else_happens(target: Target, tmp_path: Path) -> None:
    attacked(target, tmp_path, range(CASES // len(TARGETS)))


@pytest.mark.parametrize("target", [each for each in TARGETS if [*seeds(each)]], ids=lambda target: target.name)
def test_what_broke_a_reader_once_breaks_it_no_more(target: Target, tmp_path: Path) -> None:
    target.prepare(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for case in seeds(target):
        name, content = content_of(target, case)
        attempt(target, tmp_path, files, name, content)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_many_changed_files_are_refused_or_read_and_nothing_else_happens(target: Target, tmp_path: Path) -> None:
    attacked(target, tmp_path, range(CASES, CASES + LONG_CASES // len(TARGETS)))
