"""Threads sleep while other programs need the cores, and spin again afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peft_daemon.engines.waiting import (
    CALM_LOOKS,
    IDLE_LOOK_S,
    LOOK_S,
    CoreTimes,
    cores_of_others,
    times_of_cores,
    watch,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what runs the threads on Linux")

SPINS = """
import ctypes, json, os, resource, time
from peft_daemon.engines import waiting

gomp = ctypes.CDLL("libgomp.so.1")
cores = len(os.sched_getaffinity(0))

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def work(_data):
    # All but one thread of the team wait for that one at the team's end.
    if gomp.omp_get_thread_num() == 0:
        time.sleep(0.00005)

def times_asleep():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(300):
        gomp.GOMP_parallel(work, None, ctypes.c_uint(cores), ctypes.c_uint(0))
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before

times_asleep()
spinning = times_asleep()
with waiting.asleep_threads():
    asleep = times_asleep()
again = times_asleep()
print(json.dumps([spinning, asleep, again]))
"""


def seen(*others: float) -> Iterator[CoreTimes]:
    """Looks between which other programs kept so many cores busy, and this process one."""
    at = busy = own = 0.0
    yield CoreTimes(at, busy, own)
    for each in others:
        at, own, busy = at + LOOK_S, own + LOOK_S, busy + LOOK_S * (1 + each)
        yield CoreTimes(at, busy, own)


class Story:
    """What a watcher did, look by look; looking fails when the story ends."""

    def __init__(self, *others: float) -> None:
        self.looks = seen(*others)
        self.said: list[str] = []

    def look(self) -> CoreTimes:
        found = next(self.looks, None)
        if found is None:
            raise OSError("the story ends")
        self.said.append(".")
        return found

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        self.said.append("sleep")
        try:
            yield
        finally:
            self.said.append("spin")

    def told(self, room: int) -> str:
        waits: list[float] = []
        watch(room, self.look, self.asleep, waits.append)
        assert set(waits) <= {LOOK_S}
        return " ".join(self.said)


def test_threads_sleep_from_the_first_look_that_shows_another_program() -> None:
    assert Story(0, 0.1, 1, 1).told(0).startswith(". . . . sleep")


def test_they_spin_again_after_a_while_of_calm_that_nothing_interrupts() -> None:
    calm = [0.0] * (CALM_LOOKS - 1)
    # The first look after a change is where the next one is counted from.
    story = Story(1, 0, *calm, 1, 0, *calm, 0, 0, 0).told(0)
    assert story.count("sleep") == 1
    assert story.count("spin") == 1
    looks = story.split("sleep")[1].split("spin")[0].count(".")
    assert looks == 1 + (CALM_LOOKS - 1) + 1 + CALM_LOOKS


def test_a_program_on_a_core_that_is_left_free_disturbs_nobody() -> None:
    assert "sleep" not in Story(1, 1, 1, 1).told(1)
    assert "sleep" in Story(1, 2, 2, 2).told(1)


def test_while_nothing_is_computed_it_looks_less_often() -> None:
    waits: list[float] = []
    looks = iter([CoreTimes(0, 0, 0), CoreTimes(1, 0, 0), CoreTimes(2, 1, 1), CoreTimes(3, 1, 1)])

    def look() -> CoreTimes:
        if (found := next(looks, None)) is None:
            raise OSError("the story ends")
        return found

    watch(0, look, contextlib.nullcontext, waits.append)
    assert waits == [LOOK_S, IDLE_LOOK_S, LOOK_S, IDLE_LOOK_S]


def test_what_this_process_does_is_not_others() -> None:
    assert cores_of_others(CoreTimes(0, 0, 0), CoreTimes(2, 2, 2)) == 0
    assert cores_of_others(CoreTimes(0, 0, 0), CoreTimes(2, 3, 1)) == 1
    assert cores_of_others(CoreTimes(0, 5, 0), CoreTimes(2, 4, 1)) == 0
    assert cores_of_others(CoreTimes(1, 0, 0), CoreTimes(1, 1, 0)) == 0


def test_the_times_are_those_of_the_cores_that_may_be_used(tmp_path: Path) -> None:
    tick, mine = os.sysconf("SC_CLK_TCK"), min(os.sched_getaffinity(0))
    stat = tmp_path / "stat"
    other = max(os.sched_getaffinity(0)) + 1
    stat.write_text(f"cpu  99 9 9 9\ncpu{mine} 10 20 30 4000 5000 40 50 60 7 8\ncpu{other} 1000 0 0 0 0 0 0 0 0 0\n")
    assert times_of_cores(stat).busy == pytest.approx(210 / tick)
    assert times_of_cores().busy > 0
    stat.write_text("nothing that a system would say\n")
    assert times_of_cores(stat).busy == 0
    stat.write_text(f"cpu{mine} many\n")
    with pytest.raises(ValueError, match="many"):
        times_of_cores(stat)


def test_libgomps_threads_really_sleep_meanwhile_and_spin_again_afterwards() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", SPINS], env=environ, capture_output=True, text=True, check=True)
    spinning, asleep, again = json.loads(done.stdout)
    assert asleep > 1.3 * spinning
    assert asleep > 1.3 * again
