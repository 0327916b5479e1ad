"""Files are given up for good; what a kernel does not know is told and not refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core import fence, landlock
from peft_core.fence import FILES, NETWORK
from peft_core.landlock import WRITE, FileRight, FileRule, known_rights

with_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
PREPARE = """
import json, os, sys, threading
from pathlib import Path
from peft_core.fence import Fence, raise_fence
from peft_core.landlock import READ, FileRight, FileRule, restrict_files

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return "done"

home = Path(sys.argv[1])
"""


def run(code: str, home: Path) -> object:
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + code, str(home)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for folder in ("given", "own", "rest", "sockets"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("x")
    (tmp_path / "given" / "linked").symlink_to(tmp_path / "rest" / "file")
    return tmp_path


@with_landlock
def test_only_what_the_fence_names_is_read_and_only_its_folders_are_written(home: Path) -> None:
    found = run(
        """
fence = Fence(reads=(home / "given", home / "gone"), writes=(home / "own",), sockets=(home / "sockets",))
raise_fence(fence)
print(json.dumps({
    "read": outcome((home / "given/file").read_bytes),
    "read by a link in it": outcome((home / "given/linked").read_bytes),
    "change": outcome(lambda: (home / "given/file").write_text("y")),
    "make": outcome(lambda: (home / "own/new").write_text("y")),
    "make a folder": outcome((home / "own/folder").mkdir),
    "make a link": outcome(lambda: (home / "own/link").symlink_to("/")),
    "move out": outcome(lambda: (home / "own/new").rename(home / "rest/new")),
    "read beside": outcome((home / "rest/file").read_bytes),
    "read above": outcome(lambda: os.listdir(home)),
    "read among sockets": outcome((home / "sockets/file").read_bytes),
    "remove a socket": outcome((home / "sockets/file").unlink),
}))""",
        home,
    )
    refused = "Permission denied"
    assert found == {
        "read": "done",
        "read by a link in it": refused,
        "change": refused,
        "make": "done",
        "make a folder": refused,
        "make a link": refused,
        "move out": refused,
        "read beside": refused,
        "read above": refused,
        "read among sockets": refused,
        "remove a socket": refused,
    }


@with_landlock
def test_what_it_starts_stays_within_and_no_later_rule_widens_it(home: Path) -> None:
    found = run(
        """
import subprocess
raise_fence(Fence(reads=(home / "given",), programs=True))
restrict_files([FileRule(Path("/"), READ | FileRight.EXECUTE)])
cat = lambda name: subprocess.run(["/bin/cat", home / name], capture_output=True).returncode
print(json.dumps([cat("given/file"), cat("rest/file"), outcome((home / "rest/file").read_bytes)]))""",
        home,
    )
    assert found == [0, 1, "Permission denied"]


@with_landlock
def test_it_is_not_raised_beside_a_thread_that_would_keep_its_rights(home: Path) -> None:
    found = run(
        """
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    raise_fence(Fence())
except RuntimeError:
    print(json.dumps(outcome((home / "rest/file").read_bytes)))
    sys.stdout.flush()
os._exit(0)""",
        home,
    )
    assert found == "done"


@pytest.mark.parametrize(("version", "newest"), [(1, "MAKE_SYM"), (2, "REFER"), (3, "TRUNCATE"), (5, "IOCTL_DEV")])
def test_each_version_knows_the_rights_that_its_kernel_has(version: int, newest: str) -> None:
    assert known_rights(version) & FileRight[newest]
    assert not known_rights(version) & ~((FileRight[newest] << 1) - 1)
    assert known_rights(4) == known_rights(3)
    assert known_rights(99) == known_rights(5)


def test_without_landlock_nothing_is_given_up_and_that_is_told(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert not landlock.restrict_files([FileRule(home / "own", WRITE)])
    fence.fenced_off.cache_clear()
    try:
        assert FILES not in fence.fenced_off()
        told = fence.describe_fence()
        assert "all files" in told or "neither files" in told
    finally:
        fence.fenced_off.cache_clear()


@with_landlock
def test_here_both_are_kept_away_and_that_is_told() -> None:
    assert fence.fenced_off() == (FILES, NETWORK)
    assert "only the files that they need" in fence.describe_fence()


def test_a_process_of_root_keeps_no_right_to_see_into_others() -> None:
    code = (
        "from peft_core.confinement import drop_privileges; drop_privileges(); print(open('/proc/self/status').read())"
    )
    status = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    found = {line.split()[0]: line.split()[1] for line in status.splitlines() if line.startswith("Cap")}
    if sys.platform == "linux":
        assert int(found["CapEff:"], 16) & ~0b110 == 0
        assert int(found["CapPrm:"], 16) & ~0b110 == 0
        assert os.getuid() or int(found["CapEff:"], 16)
