"""Private files, the info file and the records beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import Conflict, InvalidInput
from peft_core.files import write_private
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import Settings
from peft_daemon.lifecycle.locks import daemon_lock, find_lock_holder, hold_daemon_lock, holder_file, starter_lock
from peft_daemon.lifecycle.runtime_info import (
    DaemonInfo,
    find_running_daemon,
    find_running_tuning,
    info_file,
    publish_info,
    publish_tuning_notice,
    read_info,
    withdraw_info,
)
from peft_daemon.lifecycle.stop import remove_stale_files


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})


def info_of(process: ProcessIdentity, **changes: object) -> DaemonInfo:
    info = DaemonInfo(
        pid=process.pid,
        created=process.created,
        address="unix:/nowhere.sock",
        version="0.1.0",
        protocol=1,
        config_digest=Settings().digest(),
        started=0.0,
    )
    return msgspec.structs.replace(info, **changes)


def test_a_home_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "file" / "home")})
    assert find_running_daemon(paths) is None
    with pytest.raises(InvalidInput, match="Set PEFT_DAEMON_HOME"), hold_daemon_lock(paths):
        pass


def test_a_copy_of_a_home_does_not_find_the_daemon_of_the_first(paths: Paths, tmp_path: Path) -> None:
    mine = info_of(ProcessIdentity.current(), folder=str(paths.runtime))
    publish_info(paths, mine)
    with hold_daemon_lock(paths):
        assert (find_running_daemon(paths), find_lock_holder(paths)) == (mine, ProcessIdentity.current())
        other, link = (Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / name)}) for name in ("copy", "link"))
        shutil.copytree(paths.runtime, other.runtime)
        other.runtime.chmod(0o700)
        assert (find_running_daemon(other), find_lock_holder(other)) == (None, None)
        link.runtime.parent.symlink_to(paths.runtime.parent)
        assert (find_running_daemon(link), find_lock_holder(link)) == (mine, ProcessIdentity.current())


def test_only_the_own_info_file_is_withdrawn(paths: Paths) -> None:
    mine = info_of(ProcessIdentity.current())
    other = msgspec.structs.replace(mine, address="unix:/other.sock")
    publish_info(paths, other)
    withdraw_info(paths, mine)
    assert read_info(paths) == other
    withdraw_info(paths, other)
    assert read_info(paths) is None


@given(st.binary(max_size=200))
def test_promise_09_any_content_is_a_file_to_replace_not_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path_factory.mktemp("home"))})
    paths.runtime.mkdir()
    write_private(info_file(paths), data)
    write_private(holder_file(paths), data)
    assert find_running_daemon(paths) is None
    assert find_lock_holder(paths) is None


def test_an_info_file_with_fields_of_a_later_version_can_be_read(paths: Paths) -> None:
    info = info_of(ProcessIdentity.current())
    publish_info(paths, info)
    write_private(info_file(paths), msgspec.json.encode(msgspec.to_builtins(info) | {"later": [1]}))
    assert find_running_daemon(paths) == info


def test_one_process_at_a_time_has_a_lock(paths: Paths) -> None:
    with starter_lock(paths) as first, starter_lock(paths) as second:
        assert (first, second) == (True, False)
    with starter_lock(paths) as again:
        assert again
    with hold_daemon_lock(paths):
        assert find_lock_holder(paths) == ProcessIdentity.current()
        with pytest.raises(Conflict, match=f"its pid is {os.getpid()}"), daemon_lock(paths):
            pass
    assert find_lock_holder(paths) is None


def test_promise_09_leftovers_are_removed_only_while_no_daemon_lives(paths: Paths) -> None:
    publish_info(paths, info_of(ProcessIdentity.current()))
    (paths.runtime / "d-00000000.sock").touch()
    with hold_daemon_lock(paths):
        assert not remove_stale_files(paths)
        assert info_file(paths).exists()
    assert remove_stale_files(paths)
    assert [path.name for path in paths.runtime.iterdir()] == ["daemon.lock"]


# That a run is under way is told while it is, and not after its process ended.


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
