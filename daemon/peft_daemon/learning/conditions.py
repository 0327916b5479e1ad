"""When the machine may learn: a decision from its state, with the reason in words, and how that state is read.

A run begins under stricter limits than those under which it goes on, so that it does not stop and go. A run that the
user asked for waits for neither mains power nor other programs, but gives way to completions like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import psutil

from peft_core.files import format_bytes, free_bytes
from peft_core.memory import read_memory
from peft_core.paths import Paths

MIN_FREE_DISK_BYTES = 1_000_000_000
"""A run writes a tenth of it; the rest is the user's."""
MIN_FREE_MEMORY_BYTES = 400_000_000
"""With less, a run that goes on is ended."""
MAX_SHARE_TO_BEGIN, MAX_SHARE_TO_GO_ON = 0.25, 0.5
"""Share of all cores that other programs may use."""
MAX_CELSIUS = 85.0
"""A processor that tells no limit of its own is hot from here on."""
MARGIN_CELSIUS = 8.0
"""So far below its own limit a processor is hot."""
COOL_CELSIUS = 8.0
"""So much cooler than hot it has to be before a run begins."""
ASKED_IDLE_S = 10.0
"""After so many seconds without a request a run goes on that the user asked for."""
BASELINE_S = 0.5
"""How long the use of the cores is watched if it was not watched lately."""
MAX_SAMPLE_AGE_S = 60.0
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")

Power = Literal["mains", "battery", "unknown"]


@dataclass(frozen=True, kw_only=True)
class MachineState:
    """What decides whether the machine may learn now."""

    idle_s: float
    """Since the last request of an editor or another client."""
    power: Power
    """``mains`` also for a machine without a battery."""
    others_share: float
    """Share of all cores that programs other than the daemon and its children use, from 0 to 1."""
    celsius_left: float | None
    """How far the processor is from being hot; negative: it is hot. None where no sensor tells."""
    free_memory_bytes: int
    free_disk_bytes: int
    other_run: str = ""
    """Name of an adapter that somebody else tunes on this machine."""
    paused: str = ""
    """How long the user paused learning, in words; empty: not paused."""


class Verb(StrEnum):
    """What a run should do now."""

    GO = "go"
    """Begin, or go on."""
    PAUSE = "pause"
    """Do not begin, or stop for a while."""
    END = "end"
    """End after the present step, with a checkpoint."""
    KILL = "kill"
    """Give the memory back at once; the last checkpoint counts."""


@dataclass(frozen=True)
class Decision:
    """What to do, and why in words; the reason of GO is empty."""

    verb: Verb
    why: str = ""


GO = Decision(Verb.GO)
IN_USE = "you use completions"
YOU_PAUSED = "you paused it {}"


@dataclass(frozen=True, kw_only=True)
class RunNeeds:
    """What a run needs of the machine."""

    idle_s: float
    """Seconds without a request before it may begin or go on."""
    memory_bytes: int
    """Free memory before it begins."""
    asked: bool = False
    """The user asked for it and waits."""

    @property
    def wait_s(self) -> float:
        """Seconds without a request before a paused run goes on."""
        return min(self.idle_s, ASKED_IDLE_S) if self.asked else self.idle_s


def may_begin(machine: MachineState, needs: RunNeeds) -> Decision:
    """Decide whether a run may begin now."""
    return next(_against_beginning(machine, needs), GO)


def may_go_on(machine: MachineState, needs: RunNeeds) -> Decision:
    """Decide what a run that has begun should do now."""
    return next(_against_going_on(machine, needs), GO)


def _against_beginning(machine: MachineState, needs: RunNeeds) -> Iterator[Decision]:
    if machine.paused:
        yield _wait(YOU_PAUSED.format(machine.paused))
    if not needs.asked and machine.idle_s < needs.wait_s:
        yield _wait(f"completions were used in the last {needs.wait_s:.0f} s")
    if machine.free_disk_bytes < MIN_FREE_DISK_BYTES:
        yield _wait(f"the disk has {format_bytes(machine.free_disk_bytes)} left; 1 GB is needed")
    if machine.free_memory_bytes < needs.memory_bytes:
        free, needed = format_bytes(machine.free_memory_bytes), format_bytes(needs.memory_bytes)
        yield _wait(f"{free} of memory are free; {needed} are needed")
    if machine.other_run:
        yield _wait(f"'{machine.other_run}' is being tuned on this machine")
    if needs.asked:
        return
    if machine.power != "mains":
        yield _wait(_off_mains(machine))
    if machine.celsius_left is not None and machine.celsius_left < COOL_CELSIUS:
        yield _wait("the processor is warm")
    if machine.others_share > MAX_SHARE_TO_BEGIN:
        yield _wait(f"other programs use {machine.others_share:.0%} of the processor")


def _against_going_on(machine: MachineState, needs: RunNeeds) -> Iterator[Decision]:
    if machine.free_memory_bytes < MIN_FREE_MEMORY_BYTES:
        yield Decision(Verb.KILL, f"only {format_bytes(machine.free_memory_bytes)} of memory are free")
    if machine.free_disk_bytes < MIN_FREE_DISK_BYTES / 2:
        yield Decision(Verb.END, f"the disk has only {format_bytes(machine.free_disk_bytes)} left")
    if not needs.asked and machine.power == "battery":
        yield Decision(Verb.END, _off_mains(machine))
    if machine.paused:
        yield _wait(YOU_PAUSED.format(machine.paused))
    if machine.idle_s < needs.wait_s:
        yield _wait(IN_USE)
    if needs.asked:
        return
    if machine.celsius_left is not None and machine.celsius_left < 0:
        yield _wait("the processor is hot")
    if machine.others_share > MAX_SHARE_TO_GO_ON:
        yield _wait(f"other programs use {machine.others_share:.0%} of the processor")


def _off_mains(machine: MachineState) -> str:
    return "on battery" if machine.power == "battery" else "the system does not tell whether it is on mains power"


def _wait(why: str) -> Decision:
    return Decision(Verb.PAUSE, why)


class MachineReader:
    """Reads the state of this machine; the use of the cores is that since the last reading. Calls block."""

    def __init__(self, paths: Paths, free_memory: Callable[[], int] = lambda: read_memory().available) -> None:
        self._paths, self._free_memory = paths, free_memory
        self._sample: tuple[float, float, float] | None = None
        """When the cores were looked at last, the seconds in use of all programs, and those of our own."""

    def read(self, *, idle_s: float, other_run: str = "", cores: bool = True) -> MachineState:
        """Return the state now; takes half a second where the cores were not watched lately.

        Without ``cores`` these are not looked at, and count as unused.
        """
        return MachineState(
            idle_s=idle_s,
            power=_power(),
            others_share=self._others_share() if cores else 0.0,
            celsius_left=_celsius_left(),
            free_memory_bytes=self._free_memory(),
            free_disk_bytes=free_bytes(self._paths.data),
            other_run=other_run,
        )

    def _others_share(self) -> float:
        before = self._sample
        if before is None or time.monotonic() - before[0] > MAX_SAMPLE_AGE_S:
            before = _sample()
            time.sleep(BASELINE_S)
        now = self._sample = _sample()
        passed = now[0] - before[0]
        if passed <= 0:
            return 0.0
        others = (now[1] - before[1]) - max(0.0, now[2] - before[2])
        return min(1.0, max(0.0, others / passed / (psutil.cpu_count() or 1)))


def _sample() -> tuple[float, float, float]:
    times = psutil.cpu_times()
    waiting = getattr(times, "iowait", 0.0)
    # A guest's time is counted as that of its host's programs too.
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    own = 0.0
    for process in (this := psutil.Process(), *this.children(recursive=True)):
        try:
            spent = process.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        own += spent.user + spent.system
    return time.monotonic(), sum(times) - times.idle - waiting - twice, own


def _power() -> Power:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged:
        return "mains"
    return "unknown" if battery.power_plugged is None else "battery"


def _celsius_left() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    found = psutil.sensors_temperatures()
    left = [
        (min(MAX_CELSIUS, each.high - MARGIN_CELSIUS) if each.high else MAX_CELSIUS) - each.current
        for chip in _PROCESSOR_SENSORS
        for each in found.get(chip, ())
        if each.current
    ]
    return min(left, default=None)
