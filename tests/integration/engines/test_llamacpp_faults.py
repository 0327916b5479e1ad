"""Faults of llama.cpp's child process: requests are answered or clearly refused, and the engine serves again."""

from __future__ import annotations

import asyncio
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from peft_core.child_process import ChildProcess
from peft_core.errors import EngineFailed, Unavailable
from peft_core.http_client import ConnectionPool
from peft_core.status_types import EngineState
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines import heartbeat, supervisor
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.heartbeat import HeartbeatLimits
from peft_daemon.engines.llamacpp import engine as llamacpp
from peft_daemon.engines.llamacpp.child import CHILD_MODULE
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.llamacpp.server import LlamaServerClient
from support.synthetic_adapter import TinyModel, lora, write_peft

LIMIT_S = 60.0
REQUEST = GenerationRequest((Segment("def f(x):"),), 12)
LONG = GenerationRequest((Segment("def g(x):"),), 3000)
"""More than the sockets hold: the engine cannot have ended when the first of it is read."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return TinyModel.random().write(tmp_path_factory.mktemp("base") / "base.gguf")


@pytest.fixture(scope="module")
def leases(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterLease]:
    root = tmp_path_factory.mktemp("adapters")
    registry = AdapterRegistry(root / "registry")
    folders = [(seed, write_peft(root / f"peft{seed}", lora(seed=seed))) for seed in (1, 20, 50)]
    return [registry.lease(registry.import_(folder, name=f"a{seed}", base=base)) for seed, folder in folders]


@pytest.fixture
async def engine(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LlamaCppEngine]:
    """One that has not started."""
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.05,))
    monkeypatch.setattr(heartbeat, "DEFAULT_LIMITS", HeartbeatLimits(quiet_s=0.1, ping_s=0.2))
    with tempfile.TemporaryDirectory(prefix="pd-") as sockets:
        options = LlamaCppOptions(
            "tiny", base.path, Path(sockets), context_tokens=4096, threads=1, max_loaded_adapters=1
        )
        engine = LlamaCppEngine(options)
        yield engine
        await engine.stop()
    assert children() == []


@pytest.fixture
async def serving(engine: LlamaCppEngine) -> LlamaCppEngine:
    await engine.start()
    await engine.ready()
    return engine


def children() -> list[psutil.Process]:
    """Engine processes of this one that live."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if CHILD_MODULE in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def answer(engine: LlamaCppEngine, lease: AdapterLease | None = None) -> str:
    request = GenerationRequest(REQUEST.prompt, REQUEST.max_tokens, adapter=lease)
    async with asyncio.timeout(LIMIT_S):
        return "".join([chunk.text async for chunk in engine.generate(request)])


async def reach(engine: LlamaCppEngine, state: EngineState) -> None:
    async with asyncio.timeout(LIMIT_S):
        await engine.wait_for_status(lambda status: status.state is state)


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[int]:
    """Process ids of children as they are started."""
    pids: asyncio.Queue[int] = asyncio.Queue()
    spawn = ChildProcess.spawn

    async def observed(module: str, configuration: bytes) -> ChildProcess:
        process = await spawn(module, configuration)
        pids.put_nowait(process.pid)
        return process

    monkeypatch.setattr(ChildProcess, "spawn", observed)
    return pids


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[int]:
    """Have the client of a new child fail so many times; gives the pids of the children that it was for."""
    seen: list[int] = []
    make = LlamaServerClient.__init__

    def fail(self: LlamaServerClient, *arguments: object, **options: object) -> None:
        if len(seen) < times:
            seen.append(children()[-1].pid)
            raise error
        make(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LlamaServerClient, "__init__", fail)
    return seen


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Nothing can be opened in the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError("none left"), RuntimeError("odd")])
async def test_promise_26_an_unexpected_error_at_the_start_is_told_and_the_start_tried_again(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    seen = failing(monkeypatch, error, supervisor.MAX_DEATHS_IN_A_ROW)
    await engine.start()
    with pytest.raises(EngineFailed, match="could not be started"):
        await engine.ready()
    told = engine.status()
    assert type(error).__name__ in told.last_error
    assert "doctor" in told.fix
    await reach(engine, EngineState.READY)
    assert await answer(engine)
    assert len(seen) == supervisor.MAX_DEATHS_IN_A_ROW
    assert [each.pid for each in children()] == [engine.status().pid]


async def test_promise_26_certificates_that_cannot_be_loaded_are_not_needed(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    await engine.start()
    await engine.ready()
    assert await answer(engine)


async def test_promise_26_without_descriptors_the_start_fails_clearly_and_succeeds_when_there_are_some_again(
    engine: LlamaCppEngine,
) -> None:
    with without_descriptors():
        await engine.start()
        await reach(engine, EngineState.RESTARTING)
        assert "Too many open files" in engine.status().last_error
    await reach(engine, EngineState.READY)
    assert await answer(engine)


async def test_promise_26_an_engine_that_cannot_be_connected_to_for_a_moment_is_not_replaced(
    serving: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BROKEN_CONNECTION_WAIT_S", 0.05)
    pid = serving.status().pid
    assert serving.child is not None
    serving.child.server.connections.close_unused()
    with without_descriptors(), pytest.raises(EngineFailed):
        await answer(serving)
    assert await answer(serving)
    assert serving.status().pid == pid


async def test_promise_26_an_unexpected_error_while_an_adapter_is_loaded_leaves_one_engine_that_serves(
    serving: LlamaCppEngine, leases: list[AdapterLease], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, RuntimeError("odd"), 3)
    for _ in range(3):
        with pytest.raises(EngineFailed, match="odd"):
            await answer(serving, leases[0])
        assert await answer(serving)
        assert [each.pid for each in children()] == [serving.status().pid]
    assert await answer(serving, leases[0])


async def test_loading_an_adapter_goes_on_when_the_request_for_it_is_given_up(
    serving: LlamaCppEngine, leases: list[AdapterLease], spawned: asyncio.Queue[int]
) -> None:
    request = asyncio.create_task(answer(serving, leases[0]))
    async with asyncio.timeout(LIMIT_S):
        await spawned.get()
        request.cancel()
        await serving.wait_for_status(lambda status: status.adapters == [leases[0].digest])


def refused_by(engine: LlamaCppEngine) -> ConnectionPool:
    """Connections to the engine's child that it refuses each request of; returns the right ones."""
    assert engine.child is not None
    server = engine.child.server
    right = server.connections
    host = next(
        Path(each.laddr) for each in psutil.Process(engine.child.process.pid).net_connections("unix") if each.laddr
    )
    server.connections = ConnectionPool(f"unix://{host}", headers={}, connect_s=LIMIT_S, keep_alive_s=1.0)
    return right


async def test_promise_26_an_engine_that_lives_and_fails_every_request_is_replaced(serving: LlamaCppEngine) -> None:
    assert await answer(serving)
    before = serving.status().pid
    refused_by(serving).close()
    for _ in range(supervisor.MAX_FAILURES_IN_A_ROW):
        with pytest.raises(EngineFailed, match="answered 401"):
            await answer(serving)
    async with asyncio.timeout(LIMIT_S):
        await serving.wait_for_status(lambda status: status.pid not in (None, before))
    assert await answer(serving)
    assert serving.status().restarts == 1


async def test_promise_26_an_engine_that_fails_now_and_then_is_not_replaced(serving: LlamaCppEngine) -> None:
    before = serving.status().pid
    assert serving.child is not None
    server = serving.child.server
    for _ in range(supervisor.MAX_FAILURES_IN_A_ROW):
        right = refused_by(serving)
        with pytest.raises(EngineFailed, match="answered 401"):
            await answer(serving)
        server.connections.close()
        server.connections = right
        assert await answer(serving)
    assert serving.status().pid == before


async def test_promise_26_an_engine_that_is_killed_while_it_loads_an_adapter_is_started_once_more(
    serving: LlamaCppEngine, leases: list[AdapterLease], spawned: asyncio.Queue[int]
) -> None:
    asked = asyncio.create_task(answer(serving, leases[0]))
    psutil.Process(await asyncio.wait_for(spawned.get(), LIMIT_S)).kill()
    assert await asked
    assert serving.status().adapters == [leases[0].digest]
    assert serving.status().restarts == 0


async def test_promise_26_never_more_than_two_engines_live_and_a_third_waits_for_room(
    serving: LlamaCppEngine, leases: list[AdapterLease], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(serving.generate(LONG)) as first:
        await anext(first)  # keeps the first child
        assert await answer(serving, leases[0])
        waiting = asyncio.create_task(answer(serving, leases[1]))
        assert await answer(serving, leases[0]), "the others are served meanwhile"
        assert len(children()) == supervisor.MAX_PROCESSES
        assert not waiting.done()
    assert await waiting
    monkeypatch.setattr(supervisor, "FREE_PROCESS_WAIT_S", 0.05)
    async with aclosing(serving.generate(LONG)) as first:
        await anext(first)
        assert await answer(serving, leases[0])
        with pytest.raises(Unavailable, match="no further engine"):
            await answer(serving, leases[2])
        assert len(children()) <= supervisor.MAX_PROCESSES


async def test_promise_27_a_client_that_does_not_read_on_does_not_make_the_engine_hang(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = HeartbeatLimits(quiet_s=0.02, stalled_s=0.1)
    monkeypatch.setattr(heartbeat, "DEFAULT_LIMITS", limits)
    await engine.start()
    await engine.ready()
    async with aclosing(engine.generate(LONG)) as chunks, asyncio.timeout(LIMIT_S):
        while (await anext(chunks)).silent:
            pass
        # A child that has work and does none hangs before this one does, which has five times as long.
        other = heartbeat.Heartbeat(partial(asyncio.sleep, 0), lambda: False, replace(limits, stalled_s=0.5))
        with other.working():
            await other.wait_until_hung()
        for _ in range(50):
            await anext(chunks)
    assert engine.status().restarts == 0


async def test_promise_27_an_engine_that_hangs_while_it_loads_is_ended(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch, spawned: asyncio.Queue[int]
) -> None:
    monkeypatch.setattr("peft_core.child_process.STOPPED_CHECK_S", 0.05)
    await engine.start()
    psutil.Process(await asyncio.wait_for(spawned.get(), LIMIT_S)).suspend()
    await reach(engine, EngineState.RESTARTING)
    assert "hung while it started" in engine.status().last_error
    await reach(engine, EngineState.READY)
    assert await answer(engine)


async def test_promise_27_a_hung_engine_cannot_keep_the_daemon_from_stopping(
    serving: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp, "SAVE_STATES_LIMIT_S", 0.1)
    (process,) = children()
    process.suspend()
    await serving.stop()
    assert not process.is_running()


@asynccontextmanager
async def serving_with(
    base: BaseModel, adapters: tuple[AdapterLease, ...] = ()
) -> AsyncGenerator[LlamaCppEngine, None]:
    with tempfile.TemporaryDirectory(prefix="pd-") as sockets:
        options = LlamaCppOptions("tiny", base.path, Path(sockets), context_tokens=512, threads=1, adapters=adapters)
        engine = LlamaCppEngine(options)
        await engine.start()
        try:
            await engine.ready()
            yield engine
        finally:
            await engine.stop()


async def test_adapters_loaded_from_the_start_need_no_other_child(base: BaseModel, leases: list[AdapterLease]) -> None:
    async with serving_with(base) as plain:
        expected = [await answer(plain, lease) for lease in (None, *leases)]
    async with serving_with(base, tuple(leases)) as engine:
        status = engine.status()
        assert status.adapters == [lease.digest for lease in leases]
        assert [await answer(engine, lease) for lease in (None, *leases)] == expected
        assert engine.status().pid == status.pid


async def test_an_adapter_the_engine_dies_of_does_not_keep_the_base_from_serving_with(
    base: BaseModel, leases: list[AdapterLease], tmp_path: Path
) -> None:
    damaged, gone = tmp_path / "damaged.gguf", tmp_path / "gone.gguf"
    damaged.write_bytes(leases[0].path.read_bytes()[:500])
    bad = (AdapterLease("d" * 64, damaged), AdapterLease("e" * 64, gone))
    async with serving_with(base, (*leases, *bad)) as engine:
        assert engine.status().adapters == []
        assert await answer(engine, None)
        with pytest.raises(EngineFailed, match="dddddddddddd could not be loaded"):
            await answer(engine, bad[0])
        assert await answer(engine, leases[0]) != await answer(engine, None)


PARENT = """
import asyncio, os, sys, time
import msgspec
from peft_daemon.engines.llamacpp.child import LlamaCppChildConfig
from peft_core.child_process import ChildProcess

async def main():
    config = LlamaCppChildConfig(model=sys.argv[1], adapters=[], host=sys.argv[2], api_key="k", context_tokens=512,
                                 slots=1, threads=1, batch_tokens=16)
    process = await ChildProcess.spawn("peft_daemon.engines.llamacpp.child", msgspec.json.encode(config))
    print(process.pid, flush=True)
    time.sleep(float(sys.argv[3]))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def test_promise_28_no_engine_outlives_its_killed_parent_whatever_it_is_doing(base: BaseModel, tmp_path: Path) -> None:
    moments = random.Random(39)
    parents = [
        subprocess.Popen(
            [sys.executable, "-c", PARENT, base.path, str(tmp_path / f"{n}.sock"), str(moments.uniform(0.0, 0.8))],
            stdout=subprocess.PIPE,
        )
        for n in range(8)
    ]
    engines = []
    for parent in parents:
        with parent:
            assert parent.stdout is not None
            with suppress(psutil.NoSuchProcess):
                engines.append(psutil.Process(int(parent.stdout.readline())))
    _, alive = psutil.wait_procs(engines, timeout=10)
    for each in alive:
        each.kill()
    assert [each.pid for each in alive] == []
