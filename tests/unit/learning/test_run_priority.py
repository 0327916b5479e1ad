"""The process of a run gives way to everything else on the machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import psutil
import pytest

from peft_core import processes
from peft_daemon.learning.run import LOWEST_NICENESS, lower_priority


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it decided")
def test_a_run_and_its_session_have_the_lowest_priority() -> None:
    child = processes.start(processes.python_code("input()"), stdin=-1, start_new_session=True)
    try:
        lower_priority(child.pid)
        process = psutil.Process(child.pid)
        assert process.nice() == LOWEST_NICENESS
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        assert process.ionice().ioclass is psutil.IOPRIO_CLASS_IDLE
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():  # where the kernel groups sessions
            assert re.search(r"nice (-?\d+)", group.read_text(encoding="ascii"))[1] == str(LOWEST_NICENESS)  # type: ignore[index]
    finally:
        child.kill()
        child.wait()
