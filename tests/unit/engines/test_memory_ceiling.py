"""An engine that does not fit into memory is refused, or takes the place of one that nobody uses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
import pytest

from peft_core.errors import MemoryShortage
from peft_core.memory import Memory
from peft_core.settings import Settings
from peft_daemon.engines.memory import MemoryCeiling, MemoryUse
from peft_daemon.models.catalogue import ModelEntry
from support.tiny_entry import HUB, tiny_entry

GB = 1_000_000_000
FILL = msgspec.structs.replace(tiny_entry(b"fill", HUB), bytes=GB)
SENTENCES = msgspec.structs.replace(tiny_entry(b"sentences", HUB), id="sentences", bytes=GB)


@dataclass
class Machine:
    """Memory as a test sets it, and engines that give theirs back."""

    counted: int = 0
    available: int = 20 * GB
    total: int = 24 * GB
    container: bool = False
    evicted: list[str] = field(default_factory=list)

    def count(self) -> MemoryUse:
        return MemoryUse(self.counted, Memory(self.total, self.available, self.container))


@dataclass
class Engine:
    machine: Machine
    name: str
    used: bool = False
    loaded: bool = True

    async def unload_unused(self) -> bool:
        if self.used or not self.loaded:
            return False
        self.loaded = False
        self.machine.counted -= GB
        self.machine.available += GB
        self.machine.evicted.append(self.name)
        return True


def ceiling(machine: Machine, limit_mb: int = 0) -> MemoryCeiling:
    return MemoryCeiling(Settings(memory_limit_mb=limit_mb), machine.count)


async def load(ceiling: MemoryCeiling, model: ModelEntry = FILL, *, beside: bool = False) -> None:
    await ceiling.room_for(model)(beside)


async def test_what_fits_is_loaded_and_nothing_is_unloaded_for_it() -> None:
    machine = Machine(counted=GB)
    limited = ceiling(machine, limit_mb=4000)
    limited.watched(SENTENCES, Engine(machine, "sentences"))
    await load(limited)
    assert machine.evicted == []


async def test_beyond_the_limit_it_is_refused_with_what_it_takes_and_what_to_type() -> None:
    with pytest.raises(MemoryShortage) as refused:
        await load(ceiling(Machine(counted=GB), limit_mb=2000))
    assert "takes about 1.4 GB, and 1.0 GB are free (`memory_limit_mb` is 2000)" in refused.value.why
    assert "`peft-daemon setup`" in refused.value.fix and "memory_limit_mb" in refused.value.fix
    assert refused.value.is_certain


async def test_an_engine_that_nobody_uses_gives_way_and_one_in_use_does_not() -> None:
    machine = Machine(counted=2 * GB)
    limited, other = ceiling(machine, limit_mb=3000), Engine(machine, "sentences", used=True)
    limited.watched(FILL, Engine(machine, "itself"))
    limited.watched(SENTENCES, other)
    with pytest.raises(MemoryShortage):
        await load(limited)
    assert machine.evicted == []
    other.used = False
    await load(limited)
    assert machine.evicted == ["sentences"]


async def test_a_machine_without_room_refuses_instead_of_swapping() -> None:
    with pytest.raises(MemoryShortage, match="other programs use the rest"):
        await load(ceiling(Machine(available=GB)))


async def test_a_containers_limit_counts_as_the_machine() -> None:
    with pytest.raises(MemoryShortage, match=r"three quarters of this container's 1\.0 GB"):
        await load(ceiling(Machine(total=GB, available=GB, container=True)))


async def test_a_process_beside_one_that_has_the_weights_needs_no_room_for_them() -> None:
    limited = ceiling(Machine(counted=GB), limit_mb=2000)
    await load(limited, beside=True)
    with pytest.raises(MemoryShortage):
        await load(limited)


def test_the_status_warns_while_more_is_used_than_allowed() -> None:
    machine = Machine(counted=GB)
    limited = ceiling(machine, limit_mb=500)
    limited.free_bytes()
    assert "uses 1.0 GB of memory, more than 500.0 MB" in limited.warning
    machine.counted = 1
    assert limited.free_bytes() == 500_000_000 - 1
    assert limited.warning == ""


async def test_watching_unloads_what_nobody_uses_while_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft_daemon.engines.memory.LOOK_S", 0.001)
    machine = Machine(counted=2 * GB)
    limited = ceiling(machine, limit_mb=1500)
    limited.watched(SENTENCES, Engine(machine, "sentences"))
    watching = asyncio.create_task(limited.watch())
    async with asyncio.timeout(30):
        while not machine.evicted:
            await asyncio.sleep(0.001)
    watching.cancel()
    assert machine.evicted == ["sentences"]
