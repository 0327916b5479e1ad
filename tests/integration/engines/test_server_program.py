"""A ``llama-server`` program in place of the wheel's server: older builds, other programs, and its end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from peft_core.errors import EngineFailed, InvalidInput
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.factory import server_program
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from support.llama_server import llama_server_program
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.waiting import until

PROMPT = (Segment("def f(x):"),)


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return TinyModel.random().write(tmp_path / "base.gguf")


@asynccontextmanager
async def engine(base: BaseModel, program: Path) -> AsyncIterator[LlamaCppEngine]:
    with tempfile.TemporaryDirectory(prefix="pd-") as sockets:
        one = LlamaCppEngine(
            LlamaCppOptions(
                "tiny", base.path, Path(sockets), context_tokens=512, threads=1, program=program, speculation=True
            )
        )
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
