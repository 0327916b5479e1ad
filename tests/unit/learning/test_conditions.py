"""When the machine may learn: what keeps a run from beginning, what pauses it, what ends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from peft_core.paths import Paths
from peft_daemon.learning.conditions import (
    ASKED_IDLE_S,
    GO,
    MachineReader,
    MachineState,
    RunNeeds,
    Verb,
    may_begin,
    may_go_on,
)

GB = 1_000_000_000
IDLE = MachineState(
    idle_s=1_000.0,
    power="mains",
    others_share=0.1,
    celsius_left=30.0,
    free_memory_bytes=8 * GB,
    free_disk_bytes=50 * GB,
)
NEEDS = RunNeeds(idle_s=120.0, memory_bytes=5 * GB)
ASKED = replace(NEEDS, asked=True)


def test_an_idle_machine_on_mains_power_learns() -> None:
    assert may_begin(IDLE, NEEDS) == may_go_on(IDLE, NEEDS) == GO
    assert may_begin(replace(IDLE, celsius_left=None), NEEDS) == GO, "no sensor tells"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"idle_s": 119.0}, "completions were used in the last 120 s"),
        ({"power": "battery"}, "on battery"),
        ({"power": "unknown"}, "does not tell"),
        ({"others_share": 0.26}, "other programs use 26%"),
        ({"celsius_left": 7.0}, "warm"),
        ({"free_memory_bytes": 4 * GB}, "4.0 GB of memory are free; 5.0 GB are needed"),
        ({"free_disk_bytes": GB - 1}, "1 GB is needed"),
        ({"other_run": "mine"}, "'mine' is being tuned"),
    ],
)
def test_a_run_waits_with_a_reason_before_it_begins(change: dict[str, object], why: str) -> None:
    decision = may_begin(replace(IDLE, **change), NEEDS)  # type: ignore[arg-type]
    assert decision.verb is Verb.PAUSE and why in decision.why


@pytest.mark.parametrize(
    ("change", "verb"),
    [
        ({"idle_s": 0.0}, Verb.PAUSE),
        ({"others_share": 0.51}, Verb.PAUSE),
        ({"others_share": 0.49}, Verb.GO),
        ({"celsius_left": -0.1}, Verb.PAUSE),
        ({"celsius_left": 1.0}, Verb.GO),
        ({"power": "battery"}, Verb.END),
        ({"power": "unknown"}, Verb.GO),
        ({"free_disk_bytes": GB // 3}, Verb.END),
        ({"free_disk_bytes": GB - 1}, Verb.GO),
        ({"free_memory_bytes": GB // 3}, Verb.KILL),
        ({"free_memory_bytes": GB}, Verb.GO),
    ],
)
def test_a_run_that_has_begun_goes_on_under_wider_limits(change: dict[str, object], verb: Verb) -> None:
    decision = may_go_on(replace(IDLE, **change), NEEDS)  # type: ignore[arg-type]
    assert decision.verb is verb and bool(decision.why) == (verb is not Verb.GO)


def test_memory_that_is_short_comes_before_all_else_even_while_the_run_is_paused() -> None:
    short = replace(IDLE, idle_s=0.0, free_memory_bytes=0, power="battery")
    assert may_go_on(short, NEEDS).verb is Verb.KILL


def test_a_run_that_was_asked_for_waits_for_neither_idleness_nor_power_but_for_room() -> None:
    busy = replace(IDLE, idle_s=0.0, power="battery", others_share=1.0, celsius_left=-5.0)
    assert may_begin(busy, ASKED) == GO
    assert may_begin(replace(busy, free_memory_bytes=GB), ASKED).verb is Verb.PAUSE
    assert may_begin(replace(busy, free_disk_bytes=0), ASKED).verb is Verb.PAUSE
    assert may_go_on(replace(busy, idle_s=ASKED_IDLE_S), ASKED) == GO
    assert may_go_on(busy, ASKED).verb is Verb.PAUSE, "completions go first all the same"


def test_what_the_system_tells_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = MachineReader(Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)}))
    cores = psutil.cpu_count() or 1
    used = iter([100.0, 100.0 + 0.5 * cores * 10, 100.0 + 0.5 * cores * 10])
    moments = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("peft_daemon.learning.conditions.BASELINE_S", 0.0)
    monkeypatch.setattr("peft_daemon.learning.conditions._sample", lambda: (next(moments), next(used), 0.0))
    for plugged, power in ((True, "mains"), (False, "battery"), (None, "unknown")):
        battery = SimpleNamespace(power_plugged=plugged)
        monkeypatch.setattr(psutil, "sensors_battery", lambda battery=battery: battery, raising=False)
        assert reader.read(idle_s=3.0, cores=False).power == power
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    core = [SimpleNamespace(current=70.0, high=100.0), SimpleNamespace(current=81.0, high=None)]
    disk = [SimpleNamespace(current=99.0, high=70.0)]
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {"coretemp": core, "nvme": disk}, raising=False)
    state = reader.read(idle_s=3.0, other_run="mine")
    assert (state.idle_s, state.power, state.other_run) == (3.0, "mains", "mine")
    assert state.celsius_left == pytest.approx(4.0), "the warmest core, and no disk"
    assert state.others_share == pytest.approx(0.5)
    assert state.free_memory_bytes > 0 and state.free_disk_bytes > 0


def test_what_the_daemon_and_its_children_compute_is_not_that_of_others(tmp_path: Path) -> None:
    from peft_daemon.learning.conditions import _sample

    before = _sample()
    total = 0
    while _sample()[2] - before[2] < 0.05:
        total += sum(range(10_000))
    assert total
    assert _sample()[2] > before[2]
