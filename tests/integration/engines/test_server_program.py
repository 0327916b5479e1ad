"""A ``llama-server`` program in place of the wheel's server: older builds, other programs, and its end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from peft_core.errors import EngineFailed, InvalidInput
from peft_core.paths import Paths
from peft_core.processor import processor_name
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.factory import server_program
from peft_daemon.engines.llamacpp.choice import MeasuredProgram, ProgramStamp, keep_measurements, wheel_version
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.llamacpp.program import GPU_BATCH_TOKENS
from peft_daemon.engines.llamacpp.programs import Program, measure_programs
from peft_daemon.models.catalogue import open_catalogue
from support.llama_server import llama_server_program
from support.served_gguf import served_gguf
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.tiny_entry import HUB, tiny_entry
from support.waiting import until

PROMPT = (Segment("def f(x):"),)


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return TinyModel.random().write(tmp_path / "base.gguf")


@asynccontextmanager
async def engine(base: BaseModel, program: Path, **changes: Any) -> AsyncIterator[LlamaCppEngine]:
    with tempfile.TemporaryDirectory(prefix="pd-") as sockets:
        options = LlamaCppOptions(
            "tiny", base.path, Path(sockets), context_tokens=512, threads=1, program=program, speculation=True
        )
        one = LlamaCppEngine(replace(options, **changes))
        await one.start()
        try:
            yield one
        finally:
            await one.stop()


def script(folder: Path, text: str) -> Path:
    file = folder / "llama-server"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def older(folder: Path, *unknown: str) -> Path:
    """The real program as it was before it had these options: it ends when one is given, as they all do."""
    real = llama_server_program()
    patterns = " ".join(f"-e {option}" for option in unknown)
    refused = "|".join(unknown)
    return script(
        folder,
        f'if [ "$1" = --help ]; then "{real}" --help 2>&1 | grep -v {patterns}; exit; fi\n'
        f'for each; do case "$each" in {refused}) echo "unknown argument $each" >&2; exit 1;; esac; done\n'
        f'exec "{real}" "$@"',
    )


async def answer(one: LlamaCppEngine, **fields: object) -> str:
    request = GenerationRequest(PROMPT, 8, **fields)  # type: ignore[arg-type]
    return "".join([chunk.text async for chunk in one.generate(request)])


async def test_a_build_without_some_options_answers(base: BaseModel, tmp_path: Path) -> None:
    async with engine(base, older(tmp_path, "--spec-type", "--slot-save-path", "--cache-ram")) as one:
        await one.ready()
        assert await answer(one)


async def test_a_build_that_cannot_choose_adapters_says_so_to_the_request_that_names_one(
    base: BaseModel, tmp_path: Path
) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    peft = write_peft(tmp_path / "peft", lora(seed=1))
    lease = registry.lease(registry.import_(peft, name="a", base=base), engine=LLAMACPP)
    async with engine(base, older(tmp_path, "--lora-init-without-apply")) as one:
        await one.ready()
        with pytest.raises(EngineFailed, match="could not be loaded") as failed:
            await answer(one, adapter=lease)
        assert "use a newer llama-server" in failed.value.why
        assert await answer(one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo usage: something else", "is no llama-server"),
        ("exit 3", "is no llama-server"),
        ('[ "$1" = --help ] && echo --model --host --parallel || exit 7', "ended with exit code 7"),
    ],
)
async def test_another_program_is_named_with_what_it_did(
    base: BaseModel, tmp_path: Path, text: str, message: str
) -> None:
    async with engine(base, script(tmp_path, text)) as one:
        with pytest.raises(EngineFailed) as failed:
            await one.ready()
        assert message in failed.value.why


async def test_it_ends_with_the_process_that_watches_it(base: BaseModel) -> None:
    async with engine(base, llama_server_program()) as one:
        await one.ready()
        watcher = one.status().pid
        assert watcher is not None
        (program,) = psutil.Process(watcher).children()
        os.kill(watcher, signal.SIGKILL)
        await until(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE, "its end")
        assert await answer(one)


def test_a_setting_that_names_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for named in ("no-such-llama-server", str(tmp_path), str(tmp_path / "file"), str(tmp_path / "gone")):
        with pytest.raises(InvalidInput, match="there is no program"):
            server_program(Settings(llama_server=named))
    assert server_program(Settings()) is None


def recording(folder: Path, devices: str) -> Path:
    """The real program, which says it has ``devices`` and notes its arguments."""
    return script(
        folder,
        f'if [ "$1" = --list-devices ]; then printf "Available devices:\\n{devices}"; exit; fi\n'
        f'echo "$@" > "{folder}/arguments"\n'
        f'exec "{llama_server_program()}" "$@"',
    )


@pytest.mark.parametrize(
    ("devices", "changes", "batch"),
    [
        ("", {}, 64),
        ("  CUDA0: A card (9 MiB, 9 MiB free)\\n", {}, GPU_BATCH_TOKENS),
        ("  CUDA0: A card (9 MiB, 9 MiB free)\\n", {"gpu_layers": 0}, 64),
    ],
)
async def test_a_graphics_card_gets_larger_batches(
    base: BaseModel, tmp_path: Path, devices: str, changes: dict[str, Any], batch: int
) -> None:
    async with engine(base, recording(tmp_path, devices), batch_tokens=16, **changes) as one:
        await one.ready()
        assert await answer(one)
    assert f"--ubatch-size {batch} " in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(("setting", "argument"), [("on", "--flash-attn on"), ("off", "--flash-attn off")])
async def test_flash_attention_is_as_it_is_set(base: BaseModel, tmp_path: Path, setting: str, argument: str) -> None:
    async with engine(base, recording(tmp_path, ""), flash_attention=setting) as one:
        await one.ready()
        assert await answer(one)
    assert argument in (tmp_path / "arguments").read_text()


def measured(program: Path) -> Callable[[Paths], None]:
    """Prepare a home in which the program was measured to be the fastest."""

    def prepare(paths: Paths) -> None:
        entry = open_catalogue(paths).user_entries()[0]
        one = MeasuredProgram(
            program=ProgramStamp.of(program),
            wheel=wheel_version(),
            model=entry.id,
            model_sha256=entry.sha256,
            processor=processor_name(),
            devices=(),
            reading=200,
            writing=40,
            wheel_reading=100,
            wheel_writing=20,
            measured="2026-11-29T12:00:00+00:00",
        )
        keep_measurements(paths, [one])

    return prepare


async def test_the_daemon_runs_what_was_measured_to_be_the_fastest(tmp_path: Path) -> None:
    program = llama_server_program()
    async with served_gguf(tmp_path, prepare_home=measured(program)) as served:
        assert (await served.complete()).status_code == 200
        status = await served.status()
        assert (status.engine.program, status.engine.program_problem) == (str(program), "")


@pytest.mark.parametrize("text", ["exit 1", '[ "$1" = --help ] && echo --model --host --parallel || exit 7'])
async def test_the_wheel_steps_in_for_a_measured_program_that_cannot_start(tmp_path: Path, text: str) -> None:
    async with served_gguf(tmp_path, prepare_home=measured(script(tmp_path, text))) as served:
        assert (await served.complete()).status_code == 200
        engine_status = (await served.status()).engine
        assert engine_status.program == ""
        assert "cannot start, so the package's own llama.cpp runs" in engine_status.program_problem
        await served.kill_engine()
        assert (await served.complete()).status_code == 200


async def test_the_wheel_steps_in_for_a_measured_program_that_is_gone(tmp_path: Path) -> None:
    program = script(tmp_path, "exit 1")

    def prepare(paths: Paths) -> None:
        measured(program)(paths)
        program.unlink()

    async with served_gguf(tmp_path, prepare_home=prepare) as served:
        assert (await served.complete()).status_code == 200
        assert "is gone" in (await served.status()).engine.program_problem


async def test_a_named_program_that_cannot_start_is_an_error(base: BaseModel, tmp_path: Path) -> None:
    async with engine(base, script(tmp_path, "exit 1")) as one:
        with pytest.raises(EngineFailed):
            await one.ready()
        assert one.status().program == str(tmp_path / "llama-server")


async def test_a_program_is_measured_beside_the_wheel(tmp_path: Path) -> None:
    given = TinyModel.random().write(tmp_path / "tiny.gguf", context_tokens=2048)
    entry = msgspec.structs.replace(tiny_entry(given.path.read_bytes(), HUB), context_tokens=2048)
    broken, failed = Program("path", script(tmp_path, "exit 1")), []
    (found,) = await measure_programs(
        [Program("wheel", None), Program("build", llama_server_program()), broken],
        Settings(threads=1),
        entry,
        given.path,
        on_start=lambda program: None,
        on_failure=lambda program, error: failed.append((program, error)),
    )
    assert found.program.path == str(llama_server_program())
    assert min(found.reading, found.writing, found.wheel_reading, found.wheel_writing) > 0
    assert [program for program, _ in failed] == [broken]
