"""That a run is under way is told while it is, and not after its process ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from peft_core.paths import Paths
from peft_daemon.lifecycle.runtime_info import find_running_tuning, publish_tuning_notice


def test_it_is_told_for_the_duration_of_the_run(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    assert find_running_tuning(paths) is None
    with publish_tuning_notice(paths, "mine"):
        notice = find_running_tuning(paths)
        assert notice is not None
        assert (notice.name, notice.process.pid) == ("mine", os.getpid())
    assert find_running_tuning(paths) is None


def test_a_run_that_was_killed_is_not_told_of(tmp_path: Path) -> None:
    code = (
        "import os\nfrom peft_daemon.lifecycle.runtime_info import publish_tuning_notice\n"
        "from peft_core.paths import Paths\n"
        "with publish_tuning_notice(Paths.from_environment(), 'mine'): os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PEFT_DAEMON_HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == -9
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    assert (paths.runtime / "tuning.json").exists()
    assert find_running_tuning(paths) is None
