"""Whole tuning runs that are killed at drawn moments, or find the disk full, and are resumed until they are done.

    python disturbed_tuning.py kill FOLDER SEED COUNT    COUNT kills: half at a step on the disk, half at a time
    python disturbed_tuning.py full FOLDER SEED COUNT    COUNT runs on a disk that fills up; FOLDER is a small disk
    python disturbed_tuning.py both FOLDER SEED COUNT    one after the other

Prints a JSON object of what was seen at the end. Torch is imported once; each run is a fork of this process, with one
thread. After each disturbance everything that the registry lists must be whole, and what served before must serve.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import matplotlib.figure  # noqa: F401  (imported once, for all forks)

from peft_cli.output import expected
from peft_core.api_types import Task
from peft_core.errors import PeftDaemonError
from peft_daemon.adapters.registry import AdapterRegistry
from peft_tuning.data.examples import DataSet, IntentExample
from peft_tuning.events import ignore
from peft_tuning.installation import Installation
from peft_tuning.job import FILE, TuneJob
from peft_tuning.learned import examples_seen
from peft_tuning.methods.base import MethodOptions
from peft_tuning.run import TuneRequest, run
from support import tiny_run
from support.tiny_installation import tiny_installation

ROWS = tuple(IntentExample(id=str(n), intent=f"add {n}", code=f"x+{n}") for n in range(26))
DATA = DataSet(name="sums", train=ROWS[:10], validation=ROWS[10:14], test=ROWS[14:], licence="MIT")
BEFORE, MINE = "before", "mine"
OLDER = DataSet(name="older", train=ROWS[:4], validation=ROWS[10:12], licence="MIT")
UNEXPECTED = 99
MAX_ATTEMPTS = 40
BALLAST = "ballast"


def request(name: str, *, resume: bool) -> TuneRequest:
    """A run of eight steps with four evaluations."""
    options = MethodOptions(rank=2, dropout=0.1)
    settings: dict[str, Any] = {"method": "lora", "options": options, "batch_size": 5, "threads": 1}
    job = TuneJob(**settings, epochs=4, evaluations_per_epoch=1, learning_rate=1e-2)
    data = OLDER if name == BEFORE else DATA
    return TuneRequest(name=name, job=job, load_data=lambda _tell: data, resume=resume)


@dataclass
class Home:
    """A home with a tiny base, in which the adapter ``before`` serves."""

    installation: Installation
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.installation.folder(MINE)

    @property
    def registry(self) -> AdapterRegistry:
        """As another process sees it."""
        return AdapterRegistry(self.installation.paths.adapters)

    def serving(self) -> str:
        """Name of the adapter that answers sentences."""
        found = self.registry.resolve(Task.INTENT)
        return found.name if found else ""

    def require_whole(self) -> None:
        """Check that every adapter is whole or absent, and that what served before is there."""
        names = {row.name for row in self.registry.list_adapters(check=True) if not row.damaged}
        assert names in ({BEFORE}, {BEFORE, MINE}), names
        assert len(self.registry.list_adapters()) == len(names)
        assert self.serving() in names, "what served before, or what was made"

    def result(self) -> tuple[bytes, str, str, int]:
        """The bytes of the weights, the digest, what serves, and how many examples are noted as seen."""
        manifest = self.registry.get(MINE)
        seen = examples_seen(self.installation.paths, manifest.digest)
        return tiny_run.adapter_bytes(self.folder / "adapter"), manifest.digest, self.serving(), len(seen)

    def tune(self, name: str = MINE) -> None:
        """Tune as the user would: with ``--resume`` where a run was begun."""
        run(request(name, resume=(self.installation.folder(name) / FILE).exists()), self.installation, ignore)


def made(folder: Path) -> Home:
    home = Home(tiny_installation(folder))
    code, told = forked(lambda: home.tune(BEFORE))
    assert code == 0, told
    home.registry.use(BEFORE, Task.INTENT)
    return home


def copied(home: Home, folder: Path) -> Home:
    shutil.copytree(home.installation.paths.config.parent, folder, symlinks=True)
    return Home(tiny_installation(folder))


def forked(work: Callable[[], None], *, killed_after_s: float | None = None) -> tuple[int, str]:
    """Do it in a process of its own, which is killed after a while; its exit code or signal, and what it says."""
    told = Path(os.environ["TMPDIR"]) / "stderr"
    pid = os.fork()
    if pid == 0:
        code = UNEXPECTED
        output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        try:
            work()
            code = 0
        except Exception as failure:
            error = expected(failure)  # as the command line ends with it
            code = error.exit_code
            if not isinstance(failure, PeftDaemonError | OSError):
                traceback.print_exc()
            print(error.line, flush=True)
        os._exit(code)
    if killed_after_s is not None:
        time.sleep(killed_after_s)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, told.read_text()


STEPS = [(Path, "mkdir"), (os, "fsync"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree"), (os, "unlink")]
"""How a run changes the disk: new folders, synced files, renames, deletions."""


def at_disk_step(number: int, act: Callable[[], None]) -> None:
    """Do something instead of the change of the disk of this number, from 0."""
    done = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done > number:
                act()
            return original(*args, **kwargs)

        return call

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))


def steps_of(home: Home) -> int:
    """How many changes of the disk a run makes."""
    count = 0

    def one() -> None:
        nonlocal count
        count += 1

    def work() -> None:
        at_disk_step(0, one)
        home.tune()
        print(f"steps {count}", flush=True)

    code, told = forked(work)
    assert code == 0, told
    return int(told.rpartition("steps ")[2])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(top: Path, seed: int, count: int) -> dict[str, Any]:
    """Kill runs ``count`` times; each is resumed until it is done, and gives what one left alone gives."""
    draw, seen = Random(seed), Counter[str]()
    begun = made(top / "begun")
    alone = copied(begun, top / "alone")
    steps = steps_of(alone)
    started = time.monotonic()
    timed = copied(begun, top / "timed")
    forked(timed.tune)
    takes_s = time.monotonic() - started
    expected = alone.result()
    gc.freeze()
    number = 0
    while seen["kills"] < count:
        number += 1
        home = copied(begun, top / f"run{number}")
        for _ in range(MAX_ATTEMPTS):
            left = count - seen["kills"]
            moment = draw.random()
            if left and seen["kills"] % 2 == 0:

                def work(home: Home = home, at: int = int(moment * steps)) -> None:
                    at_disk_step(at, die)
                    home.tune()

                code, told = forked(work)
            else:
                code, told = forked(home.tune, killed_after_s=moment * takes_s if left else None)
            if code == 0:
                break
            assert code == -signal.SIGKILL, told
            seen["kills"] += 1
            home.require_whole()
        assert home.result() == expected
        assert not list(home.folder.rglob(".partial-*")), "no folder is left half written"
        home.require_whole()
        seen["runs"] += 1
        shutil.rmtree(top / f"run{number}")
    return {**seen, "steps": steps, "lost": 0}


def full(top: Path, seed: int, count: int) -> dict[str, Any]:
    """Let the disk fill up in ``count`` runs; with room again each goes on, and gives what one left alone gives."""
    draw, seen = Random(seed), Counter[str]()
    begun = made(top / "begun")
    alone = copied(begun, top / "alone")
    before = used(top)
    code, told = forked(alone.tune)
    assert code == 0, told
    needs = used(top) - before
    expected = alone.result()
    shutil.rmtree(top / "alone")
    for number in range(count):
        home = copied(begun, top / f"run{number}")
        leave(top, draw.randrange(needs))
        code, told = forked(home.tune)
        (top / BALLAST).unlink()
        home.require_whole()
        seen[f"exit {code}"] += 1
        assert code in (0, 9), told
        if code:
            assert "disk is full" in told, told
            code, told = forked(home.tune)
        assert code == 0, told
        assert home.result() == expected
        assert not list(home.folder.rglob(".partial-*")), "no folder is left half written"
        shutil.rmtree(top / f"run{number}")
    return {**seen, "needs": needs, "lost": 0}


def both(top: Path, seed: int, count: int) -> dict[str, Any]:
    for name in ("killed", "full"):
        (top / name).mkdir()
    return killed(top / "killed", seed, count) | full(top / "full", seed, count)


def used(top: Path) -> int:
    room = os.statvfs(top)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def leave(top: Path, room: int) -> None:
    """Fill the disk so that only so much is left."""
    size = shutil.disk_usage(top).free - room
    with (top / BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


if __name__ == "__main__":
    verb, folder, given_seed, given_count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    found = {"kill": killed, "full": full, "both": both}[verb](folder, given_seed, given_count)
    print(json.dumps(found), flush=True)
