"""A home of its own for each test, and the certainty that no daemon outlives it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tiny_home import TinyHome


@pytest.fixture
def tiny() -> Iterator[TinyHome]:
    # Not tmp_path: a socket path has room for 103 bytes.
    root = Path(tempfile.mkdtemp(prefix="pd-"))
    home = TinyHome(root)
    yield home
    family = psutil.Process().children(recursive=True)
    for pid in {*home.notes("begin"), *home.notes("engine")}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # Daemons whose starter has ended are nobody's children any more; their command line names the home.
            if process not in family and str(root) in " ".join(process.cmdline()):
                family.append(process)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)
    shutil.rmtree(root, ignore_errors=True)
