"""How computing threads wait for each other: by spinning while they have the cores to themselves, else asleep.

llama.cpp's and torch's threads meet hundreds of times per token. On idle cores spinning is the fastest way to wait.
Once another program keeps a core busy, the others spin until the scheduler gives that core back, and answers take
minutes.

libgomp, which runs these threads on Linux, spins a hundred turns only while it has more threads than there are cores
(its manual, "GOMP_SPINCOUNT"). ``auto`` makes use of that: while other programs need the cores, it keeps so many
threads asleep that libgomp counts too many. Nothing is loaded again and no request is lost. Elsewhere threads are not
libgomp's, and wait as their own library does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WaitPolicy = Literal["auto", "active", "passive"]
"""``active`` and ``passive`` are OpenMP's words; ``auto`` changes between them (measured: docs/performance.md)."""
PASSIVE_SPIN_COUNT = 3000
"""Turns that a passively waiting thread spins before it sleeps. libgomp's default of 300,000 takes about 1 ms: when
another program uses a core, each of the hundreds of barriers per token would wait for the scheduler."""
LOOK_S, IDLE_LOOK_S = 0.25, 1.0
"""Time between two looks at what the cores do, while this process computes and while it does not."""
IDLE_SHARE = 0.02
"""A process that uses less of a core than this does not compute."""
WATCHER = "busy cores"
"""Name of the thread that looks."""
CROWDED = 0.3
"""Cores that other programs use, beyond those that are left for them, from which threads sleep."""
CALM_LOOKS = 8
"""Looks in a row without that, after which threads spin again."""
PROC = Path("/proc")


def set_wait_policy(policy: WaitPolicy, *, threads: int = 0) -> None:
    """Set how OpenMP's threads wait for each other in this process, unless the environment decides it already.

    Has an effect only before llama.cpp or torch is loaded, and only where libgomp runs their threads. ``threads`` is
    how many compute; 0: one per core.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    if policy == "passive":
        os.environ["GOMP_SPINCOUNT"] = str(PASSIVE_SPIN_COUNT)
    elif policy == "auto" and sys.platform == "linux" and WATCHER not in {each.name for each in threading.enumerate()}:
        cores = len(os.sched_getaffinity(0))
        room = cores - min(cores, threads or cores)
        arguments = (room, times_of_cores, asleep_threads)
        threading.Thread(target=watch, args=arguments, name=WATCHER, daemon=True).start()


@dataclass(frozen=True)
class CoreTimes:
    """What the cores that this process may use have done so far, in seconds."""

    at: float
    """By a clock that is never set."""
    busy: float
    """Added up over the cores, with what the machine's own host took away."""
    own: float
    """Of that, this process."""


def times_of_cores(stat: Path = PROC / "stat") -> CoreTimes:
    """Read the times; raises OSError or ValueError where the system does not tell them."""
    tick = os.sysconf("SC_CLK_TCK")
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    busy = 0
    for line in stat.read_text().splitlines():
        name, *times = line.split()
        if name in allowed:
            user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, times[:8])
            busy += user + nice + system + interrupts + soft + stolen
    return CoreTimes(time.monotonic(), busy / tick, time.process_time())


def cores_of_others(before: CoreTimes, now: CoreTimes) -> float:
    """Return how many cores other programs kept busy between two looks; not below 0."""
    passed = now.at - before.at
    return max(0.0, (now.busy - before.busy - (now.own - before.own)) / passed) if passed > 0 else 0.0


def watch(
    room: int,
    look: Callable[[], CoreTimes],
    asleep: Callable[[], contextlib.AbstractContextManager[None]],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Keep threads asleep in ``asleep`` while other programs use more than ``room`` cores; ends only without times."""
    with contextlib.suppress(OSError, ValueError):
        while True:
            _until(lambda others: others >= room + CROWDED, 1, look, sleep)
            with asleep():
                _until(lambda others: others < room + CROWDED, CALM_LOOKS, look, sleep)


def _until(
    reached: Callable[[float], bool], looks: int, look: Callable[[], CoreTimes], sleep: Callable[[float], None]
) -> None:
    """Look until so many looks in a row have reached it."""
    before, count, pause = look(), 0, LOOK_S
    while count < looks:
        sleep(pause)
        now = look()
        count = count + 1 if reached(cores_of_others(before, now)) else 0
        pause = LOOK_S if now.own - before.own > IDLE_SHARE * (now.at - before.at) else IDLE_LOOK_S
        before = now


@contextlib.contextmanager
def asleep_threads() -> Iterator[None]:
    """Keep so many threads of each loaded libgomp asleep that it counts more threads than there are cores."""
    end, begun = threading.Event(), []
    for library in loaded_libgomps():
        ready = threading.Event()
        # They belong to the thread that began them, and end with it.
        owner = threading.Thread(target=_hold, args=(library, ready, end), name="asleep", daemon=True)
        owner.start()
        ready.wait()
        begun.append(owner)
    try:
        yield
    finally:
        end.set()
        for owner in begun:
            owner.join()


def loaded_libgomps(maps: Path = PROC / "self/maps") -> list[Path]:
    """Return the files of libgomp that this process has loaded: torch may bring its own."""
    files = {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if "/libgomp" in line}
    return sorted(Path(file) for file in files)


def _hold(library: Path, ready: threading.Event, end: threading.Event) -> None:
    """Begin a team with a thread more than there are cores, and let it sleep until ``end``."""
    try:
        team = ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) does nothing
        team.GOMP_parallel(nothing, None, ctypes.c_uint(len(os.sched_getaffinity(0)) + 1), ctypes.c_uint(0))
    except (OSError, AttributeError):
        pass  # a libgomp that is no longer there, or another one: its threads go on as they are
    finally:
        ready.set()
    end.wait()
