"""What every engine promises, with a real process and a tiny random model: streams, limits, adapters, faults.

The model and the adapters are the same files for all engines. The process is the engine's own child, or for the
upstream engine a ``llama-server`` that it does not own; ``CAPABILITIES`` says which promises need a child. The tests of
one engine share one instance, which survives the faults; so later tests compare with the state that they find.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from peft_core.api_types import FinishReason, SamplingParams
from peft_core.errors import EngineFailed, InvalidInput, NotFound, Unavailable, UnusableFile
from peft_core.status_types import LLAMACPP, TORCH, UPSTREAM, EngineState
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines import heartbeat, supervisor
from peft_daemon.engines.base import Engine, GenerationChunk, GenerationRequest, LoadChecks, Segment, TokenizingEngine
from peft_daemon.engines.heartbeat import HeartbeatLimits
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.supervisor import SupervisedEngine
from peft_daemon.engines.torch.engine import TorchEngine, TorchOptions
from peft_daemon.engines.upstream.engine import UpstreamEngine, UpstreamOptions
from peft_daemon.engines.upstream.failures import UpstreamAddress
from support.llama_server import built_llama_server, llama_server, llama_server_program
from support.synthetic_adapter import TinyModel, lora, write_peft

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, beyond what all can."""

    kind: str
    """Its name in the status."""
    owns_process: bool = True
    """Whether the model runs in a child that the engine starts, watches and replaces."""
    applies_adapters: bool = True
    """Whether it loads an adapter's files with the request that names it."""
    reads_in_steps: bool = True
    """Whether a cancelled request stops reading within a number of tokens that the engine sets."""


PROGRAM = "llama-server"
"""The llama.cpp engine with a program in place of the wheel's server."""
BUILD = "compiled llama-server"
"""The same with the program that `engine build` compiles: minutes, the first time."""
CAPABILITIES = {
    LLAMACPP: Capabilities("llama.cpp"),
    PROGRAM: Capabilities("llama.cpp"),
    BUILD: Capabilities("llama.cpp"),
    TORCH: Capabilities("torch"),
    UPSTREAM: Capabilities(UPSTREAM, owns_process=False, applies_adapters=False, reads_in_steps=False),
}
MARKS = {TORCH: [pytest.mark.torch], BUILD: [pytest.mark.long, pytest.mark.timeout(5400)]}


def engines(able: Callable[[Capabilities], bool] = lambda can: True) -> list[Any]:
    """The engines with a capability, as parameters."""
    return [pytest.param(engine, marks=MARKS.get(engine, [])) for engine, can in CAPABILITIES.items() if able(can)]


with_child = pytest.mark.parametrize("engine_id", engines(lambda can: can.owns_process), indirect=True, scope="module")
with_adapters = pytest.mark.parametrize(
    "engine_id", engines(lambda can: can.applies_adapters), indirect=True, scope="module"
)
LIMIT_S = 120.0
CONTEXT_TOKENS = 4096
PROMPT = (Segment("def f(x):"),)
ENDLESS = (Segment("def g(x):"),)
"""A prompt after which the model writes until its limit."""
LONG = (Segment("def return(x): " * 60),)
NO_FAULT_UNDER_LOAD = HeartbeatLimits(quiet_s=0.2, ping_s=0.5, missed_pings=200)
"""A process stopped by a signal is noticed at once, a slow one is not taken for hung."""


@dataclass(frozen=True)
class Files:
    """A base, and leases of two adapters of it and of a damaged one."""

    path: Path
    adapters: tuple[AdapterLease, AdapterLease]
    damaged: AdapterLease
    checks: LoadChecks


def make_files(folder: Path, engine: str) -> Files:
    base = TinyModel.random().write(folder / "base.gguf", pretokenizer="qwen2", context_tokens=CONTEXT_TOKENS)
    registry = AdapterRegistry(folder / "registry")
    leases = []
    for seed in (1, 50, 90):
        peft = write_peft(folder / f"peft{seed}", lora(seed=seed))
        leases.append(registry.lease(registry.import_(peft, name=f"a{seed}", base=base), engine=engine))
    damaged = leases[2].path
    weights = damaged / "adapter_model.safetensors" if damaged.is_dir() else damaged
    weights.write_bytes(weights.read_bytes()[:-9] + b"#########")
    checks = LoadChecks(
        lambda: base.path, lambda lease: registry.check_lease(lease, engine=engine), lambda reason: None
    )
    return Files(base.path, (leases[0], leases[1]), leases[2], checks)


def create(engine: str, model: Path, sockets: Path, checks: LoadChecks | None = None) -> SupervisedEngine[Any]:
    """An engine with a child of its own."""
    if engine == TORCH:
        adapters = (model.parent / "registry",)
        options = TorchOptions("tiny", model, context_tokens=CONTEXT_TOKENS, threads=1, checks=checks)
        return TorchEngine(replace(options, adapter_folders=adapters))
    program = {PROGRAM: llama_server_program, BUILD: built_llama_server}.get(engine, lambda: None)()
    options = LlamaCppOptions("tiny", model, sockets, context_tokens=CONTEXT_TOKENS, threads=1, checks=checks)
    return LlamaCppEngine(replace(options, program=program))


@pytest.fixture(scope="module", params=engines())
def engine_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(engine_id: str, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp(engine_id), TORCH if engine_id == TORCH else LLAMACPP)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(engine_id: str, files: Files) -> AsyncIterator[Engine]:
    async with running(engine_id, files) as engine:
        yield engine


@asynccontextmanager
async def running(engine_id: str, files: Files) -> AsyncIterator[Engine]:
    """The engine, ready, until the block ends."""
    if engine_id == UPSTREAM:
        steps = ("--batch-size", "64", "--ubatch-size", "64")
        with llama_server(files.path, files.path.with_suffix(".log"), *steps, context_tokens=CONTEXT_TOKENS) as server:
            upstream = UpstreamEngine(
                UpstreamOptions(UpstreamAddress(server.url), model_id="tiny", context_tokens=CONTEXT_TOKENS)
            )
            await upstream.start()
            await upstream.ready()
            yield upstream
            await upstream.stop()
        return
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="pd-") as sockets:
        patch.setattr(supervisor, "BACKOFF_S", (0.05,))
        patch.setattr(heartbeat, "DEFAULT_LIMITS", NO_FAULT_UNDER_LOAD)
        engine = create(engine_id, files.path, Path(sockets), files.checks)
        await engine.start()
        await engine.ready()
        yield engine
        await engine.stop()


async def generate(engine: Engine, request: GenerationRequest) -> tuple[str, GenerationChunk]:
    """Return the whole text and the last chunk, the only one that says why the generation ended."""
    async with asyncio.timeout(LIMIT_S):
        *chunks, last = [chunk async for chunk in engine.generate(request)]
    assert last.reason is not None and not last.text
    assert not [chunk for chunk in chunks if chunk.reason is not None]
    return "".join(chunk.text for chunk in chunks), last


async def answer(engine: Engine, adapter: AdapterLease | None = None) -> str:
    return (await generate(engine, GenerationRequest(PROMPT, 12, adapter=adapter)))[0]


async def first_text(stream: AsyncGenerator[GenerationChunk, None]) -> None:
    async for chunk in stream:
        if chunk.text:
            return


def pid_of(engine: Engine) -> int:
    pid = engine.status().pid
    assert pid is not None
    # A program is the child's own child.
    return next((each.pid for each in psutil.Process(pid).children()), pid)


async def test_text_is_streamed_and_the_end_reports_the_timings(engine: Engine, engine_id: str) -> None:
    *chunks, last = [chunk async for chunk in engine.generate(GenerationRequest(PROMPT, 12))]
    assert sum(bool(chunk.text) for chunk in chunks) > 3
    timings = last.timings
    assert timings.prompt_tokens == len(PROMPT[0].text)
    assert timings.prompt_evaluated + timings.prompt_reused == timings.prompt_tokens
    assert timings.decode_tokens > 0 and 0 < timings.first_token_ms <= timings.engine_ms
    status = engine.status()
    assert status.kind == CAPABILITIES[engine_id].kind
    assert (status.state, status.model, status.restarts) == (EngineState.READY, "tiny", 0)


async def test_the_status_tells_of_a_process_where_the_engine_has_one_and_of_a_server_elsewhere(
    engine: Engine, engine_id: str
) -> None:
    status, own = engine.status(), CAPABILITIES[engine_id].owns_process
    assert (status.pid is not None, status.memory_bytes > 10e6, status.upstream is None) == (own, own, own)


async def test_reading_is_reported_before_the_first_text(engine: Engine) -> None:
    evaluated = []
    async with aclosing(engine.generate(GenerationRequest((Segment("#1 "), *LONG), 4))) as chunks:
        async for chunk in chunks:
            if chunk.text:
                break
            evaluated.append(chunk.timings.prompt_evaluated)
    assert evaluated == sorted(evaluated) and len(set(evaluated)) >= 3
    assert chunk.timings.prompt_evaluated + chunk.timings.prompt_reused == chunk.timings.prompt_tokens


async def test_an_answer_begins_with_the_required_text(engine: Engine) -> None:
    for text in (" ret", '"', "\n"):
        assert (await generate(engine, GenerationRequest(PROMPT, 8, begins_with=text)))[0].startswith(text)


async def test_the_token_limit_ends_with_length(engine: Engine) -> None:
    _, last = await generate(engine, GenerationRequest(PROMPT, 3))
    assert (last.reason, last.timings.decode_tokens) == (FinishReason.LENGTH, 3)


async def test_a_request_for_no_tokens_reads_the_prompt_for_the_next_one(engine: Engine) -> None:
    prompt = (Segment("#2 "), *LONG)
    text, last = await generate(engine, GenerationRequest(prompt, 0))
    assert (text, last.reason, last.timings.decode_tokens) == ("", FinishReason.LENGTH, 0)
    _, last = await generate(engine, GenerationRequest(prompt, 2))
    assert last.timings.prompt_evaluated == 1


async def test_the_answer_ends_before_a_stop_string(engine: Engine) -> None:
    whole, _ = await generate(engine, GenerationRequest(PROMPT, 12))
    stop = whole[4:7]
    text, last = await generate(engine, GenerationRequest(PROMPT, 12, stop=("never", stop)))
    assert (text, last.reason) == (whole[: whole.index(stop)], FinishReason.STOP)


async def test_the_time_budget_ends_with_timeout(engine: Engine) -> None:
    _, last = await generate(engine, GenerationRequest(ENDLESS, 3000, time_budget_ms=5))
    assert last.reason is FinishReason.TIMEOUT


async def test_a_prompt_that_does_not_fit_is_refused_with_the_fix(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="context_tokens"):
        await generate(engine, GenerationRequest((Segment("word " * 1000),), 4))


async def test_a_seed_makes_sampling_repeatable(engine: Engine) -> None:
    def request(seed: int) -> GenerationRequest:
        return GenerationRequest(PROMPT, 12, sampling=SamplingParams(temperature=1.5, seed=seed))

    _, first, again = [(await generate(engine, request(7)))[0] for _ in range(3)]
    assert first == again
    assert {(await generate(engine, request(seed)))[0] for seed in (1, 2, 3)} != {first}


async def test_logprobs_come_with_alternatives(engine: Engine) -> None:
    request = GenerationRequest(PROMPT, 3, logprobs=3)
    tokens = [each async for chunk in engine.generate(request) for each in chunk.logprobs]
    assert len(tokens) == 3
    assert all(each.logprob <= 0 and len(each.top) == 3 for each in tokens)
    assert all(each.token == max(each.top, key=lambda pair: pair[1])[0] for each in tokens)


async def test_tokens_are_counted_literally_also_while_a_request_is_decoded(engine: Engine) -> None:
    async with aclosing(engine.generate(GenerationRequest(ENDLESS, 3000))) as stream:
        await first_text(stream)
        # A control token that is spelled out is thirteen characters.
        assert await engine.count_tokens(["def", "", "<|endoftext|>"]) == [3, 0, 13]


async def test_an_engine_that_shows_tokens_gives_the_text_back(engine: Engine, engine_id: str) -> None:
    if not isinstance(engine, TokenizingEngine):
        assert engine_id != LLAMACPP
        return
    assert isinstance(engine, LlamaCppEngine)
    text = "def f(x):<|endoftext|>"
    literal = await engine.tokenize(text, special=False)
    assert len(literal) == sum(await engine.count_tokens([text]))
    assert len(await engine.tokenize(text, special=True)) < len(literal)
    assert await engine.detokenize(literal) == text
    assert await engine.detokenize([]) == ""
    with pytest.raises(InvalidInput, match="2147483647"):
        await engine.detokenize([*literal, 2**31 - 1])
    assert await engine.detokenize(literal) == text


@pytest.mark.parametrize("reads", [True, False], ids=["while it reads the prompt", "while it writes"])
async def test_closing_the_stream_stops_the_engine(engine: Engine, engine_id: str, reads: bool) -> None:
    stream = engine.generate(GenerationRequest((Segment("#3 "), *LONG) if reads else ENDLESS, 3000))
    under_way = asyncio.Event()

    async def consume() -> None:
        seen = 0
        async for chunk in stream:
            seen += 1
            if chunk.silent is reads and seen > 1:
                under_way.set()

    consuming = asyncio.create_task(consume())
    await asyncio.wait_for(under_way.wait(), LIMIT_S)
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    await stream.aclose()
    await asyncio.wait_for(engine.idle(), 20)
    if reads:
        _, last = await generate(engine, GenerationRequest((Segment("#3 "), *LONG), 1))
        assert last.timings.prompt_reused > 0, "it goes on where it stopped"
        if CAPABILITIES[engine_id].reads_in_steps:
            assert last.timings.prompt_reused < last.timings.prompt_tokens - 16


@with_adapters
async def test_each_request_is_answered_with_the_adapter_that_it_leases(engine: Engine, files: Files) -> None:
    everyone = (None, *files.adapters)
    first = [await answer(engine, adapter) for adapter in everyone]
    assert len(set(first)) == 3, "the base and both adapters differ"
    assert set(engine.status().adapters) == {adapter.digest for adapter in files.adapters}
    for order in ([0, 2, 1, 0], [1, 1, 0, 0], [2, 0, 1]):
        assert [await answer(engine, everyone[i]) for i in order] == [first[i] for i in order]
    together = await asyncio.gather(*(answer(engine, everyone[i]) for i in (0, 1, 2, 1, 0)))
    assert together == [first[i] for i in (0, 1, 2, 1, 0)]


@with_adapters
async def test_an_adapter_of_scale_0_is_the_base(engine: Engine, files: Files) -> None:
    lease = files.adapters[0]
    none = AdapterLease(lease.digest, lease.path, 0.0)
    half = AdapterLease(lease.digest, lease.path, 0.5)
    assert await answer(engine, none) == await answer(engine)
    assert await answer(engine, half) not in {await answer(engine), await answer(engine, lease)}


@with_adapters
async def test_an_adapter_whose_files_are_damaged_is_refused_before_it_is_loaded(engine: Engine, files: Files) -> None:
    with pytest.raises(UnusableFile, match="'a90' is damaged"):
        await answer(engine, files.damaged)
    assert await answer(engine)
    assert engine.status().restarts == 0


@with_adapters
async def test_an_adapter_that_was_removed_is_refused_with_the_fix(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="removed meanwhile"):
        await answer(engine, AdapterLease("0" * 64, tmp_path / "gone"))


@with_adapters
async def test_an_adapter_that_is_removed_while_it_is_loaded_is_told_as_removed(
    engine: Engine, engine_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(engine, SupervisedEngine)
    files = make_files(tmp_path, TORCH if engine_id == TORCH else LLAMACPP)
    removed = files.adapters[1]
    gone = AdapterLease("1" * 64, removed.path, name="mine")

    async def remove(adapter: AdapterLease) -> None:
        if adapter == gone:
            adapter.path.rename(tmp_path / "trash")

    # What comes after the check that the files are intact is the child's reading of them.
    monkeypatch.setattr(engine, "_check", remove)
    with pytest.raises(NotFound, match=r"'mine' .* was removed meanwhile"):
        await answer(engine, gone)
    monkeypatch.undo()
    assert await answer(engine)
    assert engine.status().restarts == 0


def kill(child: psutil.Process) -> None:
    """Kill a child that may be dead already: what it wrote before is still being read."""
    with contextlib.suppress(psutil.NoSuchProcess):
        child.kill()


@with_child
async def test_a_request_that_had_begun_fails_clearly_and_the_next_one_works(engine: Engine) -> None:
    expected, before = await answer(engine), engine.status()
    child = psutil.Process(pid_of(engine))
    with pytest.raises(EngineFailed, match="Send the request again"):
        async for chunk in engine.generate(GenerationRequest(ENDLESS, 3000)):
            if chunk.text:
                kill(child)
    assert await answer(engine) == expected
    after = engine.status()
    assert (after.state, after.restarts) == (EngineState.READY, before.restarts + 1)


@with_child
async def test_a_request_survives_the_death_of_the_engine_before_its_first_text(
    engine: Engine,
) -> None:
    before, child = engine.status(), psutil.Process(pid_of(engine))
    reason = None
    async for chunk in engine.generate(GenerationRequest((Segment("#4 "), *LONG), 2)):
        if chunk.silent:
            kill(child)
        reason = chunk.reason
    assert reason is FinishReason.LENGTH
    assert engine.status().restarts == before.restarts + 1


async def suspend(pid: int) -> None:
    """Stop a process by a signal: until the thread that gets it is scheduled, the others may still answer."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        await asyncio.sleep(0.01)


@with_child
async def test_promise_27_an_idle_engine_that_is_stopped_by_a_signal_is_replaced_when_the_next_request_comes(
    engine: Engine, files: Files
) -> None:
    expected = await answer(engine, files.adapters[0])
    before = engine.status()
    await suspend(pid_of(engine))
    assert await answer(engine, files.adapters[0]) == expected
    after = engine.status()
    assert after.restarts == before.restarts + 1
    assert before.pid is not None and not psutil.pid_exists(before.pid)


@with_child
async def test_promise_27_an_engine_that_hangs_while_it_writes_is_told_of_and_the_next_request_is_right(
    engine: Engine,
) -> None:
    expected, pid = await answer(engine), pid_of(engine)
    with pytest.raises(EngineFailed, match="hung while it worked") as caught:
        async with asyncio.timeout(LIMIT_S):
            async for chunk in engine.generate(GenerationRequest(ENDLESS, 3000)):
                if chunk.text:
                    await suspend(pid)
    assert "signal" in caught.value.why
    assert await answer(engine) == expected


async def test_stopping_ends_the_child_and_refuses_requests(engine: Engine) -> None:
    pid = engine.status().pid
    await engine.stop()
    await engine.stop()
    assert pid is None or not psutil.pid_exists(pid)
    with pytest.raises(Unavailable, match="peft-daemon start"):
        await answer(engine)


@with_child
async def test_a_model_that_cannot_be_loaded_is_reported(engine_id: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 1000)
    engine = create(engine_id, bad, tmp_path)
    await engine.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            status = await engine.wait_for_status(lambda status: bool(status.last_error))
        assert status.state in {EngineState.RESTARTING, EngineState.FAILED}
        assert "could not load the model" in status.last_error
        assert "peft-daemon doctor" in status.fix
        assert status.fix not in status.last_error
    finally:
        await engine.stop()
