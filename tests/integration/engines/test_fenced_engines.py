"""Code of a hostile file that took a child over finds nothing of the user and reaches nobody; engines work on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peft_core import landlock
from peft_core.api_types import SamplingParams
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.completion import chat_template
from peft_daemon.completion.detection import instruct_format_of
from peft_daemon.context import index_client
from peft_daemon.context.index_client import IndexClient, SelectChunks
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp import program
from peft_daemon.engines.llamacpp.child import CHILD_MODULE as LLAMACPP_CHILD
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions, SavedStatesOptions
from peft_daemon.engines.supervisor import SupervisedEngine
from peft_daemon.engines.torch.engine import CHILD_MODULE as TORCH_CHILD
from peft_daemon.engines.torch.engine import TorchEngine, TorchOptions
from support.llama_server import llama_server_program
from support.own_repository import OwnRepository
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.vocabulary import vocabulary

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
INTRUDER = Path(__file__).parents[2] / "support" / "intruder"
LIMIT_S = 120.0
REFUSED = "Permission denied"
NOT_PERMITTED = "Operation not permitted"


@dataclass(frozen=True)
class Outside:
    """A user's home, in which nothing is an engine's business."""

    home: Path
    secret: Path
    project: Path
    listening: Path
    hearing: Path

    def attempts(self) -> dict[str, tuple[str, str]]:
        """What a program of the user could do, by name: how it is tried, and on what."""
        site = Path(msgspec.__file__).parent
        return {
            "read a key": ("read", str(self.secret)),
            "read code": ("read", str(self.project / "code.py")),
            "look around": ("list", str(self.home)),
            "add a hook": ("make", str(self.project / "hook")),
            "change code": ("write", str(self.project / "code.py")),
            "give a key away": ("mode", str(self.secret)),
            "remove code": ("remove", str(self.project / "old.py")),
            "link a key": ("link", f"{self.secret}{os.pathsep}{self.home / 'linked'}"),
            "change a package": ("make", str(site / "taken_over.pth")),
            "write to /tmp": ("make", str(Path(tempfile.gettempdir()) / f"taken-over-{os.getpid()}")),
            "share memory": ("make", f"/dev/shm/taken-over-{os.getpid()}"),
            "read the parent's environment": ("read", "/proc/{parent}/environ"),
            "read the parent's memory": ("memory", "{parent}"),
            "signal the parent": ("signal", "{parent}"),
            "ask a local service": ("connect", str(self.listening)),
            "tell a local service": ("send", str(self.hearing)),
            "run a program": ("run", "/bin/true"),
        }


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    home, short = tmp_path / "user", Path(tempfile.mkdtemp(prefix="pd-"))
    (home / "project").mkdir(parents=True)
    for name in ("key", "project/code.py", "project/old.py"):
        (home / name).write_text("mine\n")
    with socket.socket(socket.AF_UNIX) as service, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hearing:
        service.bind(str(short / "s"))
        hearing.bind(str(short / "h"))
        service.listen()
        yield Outside(home, home / "key", home / "project", short / "s", short / "h")


@pytest.fixture
def intrude(tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Have every child that runs ``module`` taken over at an event; returns the file in which it reports."""

    def prepare(module: str, at: tuple[str, str]) -> Path:
        report = tmp_path / "report.jsonl"
        order = {"in": [module], "at": at, "report": str(report), "attempts": outside.attempts()}
        monkeypatch.setenv("INTRUDER", json.dumps(order))
        monkeypatch.setenv("PYTHONPATH", str(INTRUDER))
        return report

    return prepare


def reported(report: Path) -> dict[str, str]:
    """What became of each attempt, of the first child that was taken over."""
    found: dict[str, str] = json.loads(report.read_text().splitlines()[0])
    return found


@dataclass(frozen=True)
class Served:
    engine: SupervisedEngine[Any]
    adapter: AdapterLease
    later: AdapterLease
    """Imported while the engine serves."""
    states: Path

    async def answer(self, adapter: AdapterLease | None = None, text: str = "def f(x):") -> str:
        request = GenerationRequest(
            (Segment(text),), max_tokens=4, adapter=adapter, sampling=SamplingParams(temperature=0.0)
        )
        async with asyncio.timeout(LIMIT_S):
            return "".join([chunk.text async for chunk in self.engine.generate(request)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    file = tmp_path_factory.mktemp("model") / "base.gguf"
    return TinyModel.random().write(file, pretokenizer="qwen2", context_tokens=4096)


@asynccontextmanager
async def served(engine_id: str, base: BaseModel, folder: Path, *, confined: bool = True) -> AsyncIterator[Served]:
    """A real engine with a tiny model and adapters, as the daemon sets it up."""
    registry = AdapterRegistry(folder / "registry")

    def add(seed: int) -> AdapterLease:
        peft = write_peft(folder / f"peft{seed}", lora(seed=seed))
        return registry.lease(registry.import_(peft, name=f"a{seed}", base=base), engine=engine_id)

    first, states, sockets = add(1), folder / "kv", Path(tempfile.mkdtemp(prefix="pd-"))
    engine: SupervisedEngine[Any]
    if engine_id == TORCH:
        engine = TorchEngine(
            TorchOptions("tiny", base.path, threads=1, adapter_folders=(registry.folder,), confined=confined)
        )
    else:
        saved = SavedStatesOptions(states, 10_000_000, base.sha256)
        options = LlamaCppOptions("tiny", base.path, sockets, threads=1, states=saved, confined=confined)
        engine = LlamaCppEngine(options)
    await engine.start()
    try:
        await engine.ready()
        yield Served(engine, first, add(50), states)
    finally:
        await engine.stop()


TAKEN = {LLAMACPP: (LLAMACPP_CHILD, ("import", "xllamacpp")), TORCH: (TORCH_CHILD, ("import", "'torch'"))}
ENGINES = [LLAMACPP, pytest.param(TORCH, marks=pytest.mark.torch)]


@pytest.mark.parametrize("engine_id", ENGINES)
async def test_an_engine_that_is_taken_over_reaches_nothing_of_the_user(
    engine_id: str, base: BaseModel, tmp_path: Path, outside: Outside, intrude: Callable[..., Path]
) -> None:
    report = intrude(*TAKEN[engine_id])
    async with served(engine_id, base, tmp_path) as up:
        assert await up.answer()
    found = reported(report)
    assert set(found.values()) <= {REFUSED, NOT_PERMITTED}, found
    assert (outside.project / "old.py").exists()


@pytest.mark.parametrize("engine_id", ENGINES)
async def test_without_its_fence_it_reaches_all_of_that(
    engine_id: str, base: BaseModel, tmp_path: Path, intrude: Callable[..., Path]
) -> None:
    report = intrude(*TAKEN[engine_id])
    async with served(engine_id, base, tmp_path, confined=False) as up:
        assert await up.answer()
    # Debuggers are the system's own matter.
    found = {name: outcome for name, outcome in reported(report).items() if "parent's" not in name}
    assert set(found.values()) == {"done"}, found


@pytest.mark.parametrize("engine_id", ENGINES)
async def test_behind_its_fence_it_loads_adapters_that_come_later(
    engine_id: str, base: BaseModel, tmp_path: Path
) -> None:
    async with served(engine_id, base, tmp_path) as up:
        base, first, later = await up.answer(), await up.answer(up.adapter), await up.answer(up.later)
        assert len({base, first, later}) > 1
        assert up.engine.status().restarts == 0


async def test_behind_its_fence_states_are_saved_and_read_again(base: BaseModel, tmp_path: Path) -> None:
    long = "def return(x): " * 60
    async with served(LLAMACPP, base, tmp_path) as up:
        first = await up.answer(text=long)
    assert list((tmp_path / "kv").glob("*.kv"))
    async with served(LLAMACPP, base, tmp_path) as again:
        request = GenerationRequest((Segment(long),), max_tokens=4)
        assert await again.engine.unread(request) < 10  # type: ignore[attr-defined]
        assert await again.answer(text=long) == first


async def test_a_model_that_links_lead_to_is_read_where_it_lies(base: BaseModel, tmp_path: Path) -> None:
    linked = tmp_path / "linked.gguf"
    linked.symlink_to(base.path)
    async with served(LLAMACPP, replace(base, path=linked), tmp_path) as up:
        assert await up.answer()


async def test_the_index_reads_any_folder_and_changes_none(
    tmp_path: Path, outside: Outside, intrude: Callable[..., Path]
) -> None:
    own = OwnRepository(tmp_path / "own")
    own.commit({"ship.py": "def ship_parcel(parcel, carrier):\n    return carrier.hand_over(parcel)\n"})
    report = intrude(index_client.MODULE, ("open", "ship.py"))
    index = IndexClient()
    try:
        query = {"before": "def send(parcel, carrier):\n    carrier.", "after": "", "path": "app.py"}
        sizes = {"shown_before": 100, "shown_after": 0, "tokens": 300}
        asked = SelectChunks(id=0, root=str(own.root), edits=[], **query, **sizes)  # type: ignore[arg-type]
        async with asyncio.timeout(LIMIT_S):
            while not await index.select(asked):
                await asyncio.sleep(0.05)
    finally:
        await index.stop()
    found = reported(report)
    reads = {"read a key", "read code", "look around", "run a program"}
    assert {found.pop(each) for each in reads} == {"done"}
    assert set(found.values()) <= {REFUSED, NOT_PERMITTED}, found


def test_a_template_that_broke_out_of_its_sandbox_reaches_nothing_of_the_user(intrude: Callable[..., Path]) -> None:
    report = intrude(chat_template.__name__, ("import", "jinja2.sandbox"))
    made = vocabulary(("<eos>",), chat_template="{{ messages[0].content }}", eos="<eos>")
    assert instruct_format_of(made) is not None
    found = reported(report)
    assert set(found.values()) <= {REFUSED, NOT_PERMITTED}, found


REACHING_PROGRAM = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What a server program does that a hostile model took over, before it serves as the real one does. */
int main(int count, char **arguments) {
  (void)count;
  const char *report = "REPORT", *key = "KEY", *made = "MADE", *listening = "LISTENING";
  FILE *out = fopen(report, "a");
  if (out) {
    fprintf(out, "%s\n", open(key, O_RDONLY) < 0 ? strerror(errno) : "read");
    fprintf(out, "%s\n", open(made, O_WRONLY | O_CREAT, 0600) < 0 ? strerror(errno) : "made");
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    strcpy(place.sun_path, listening);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    fprintf(out, "%s\n", connect(local, (struct sockaddr *)&place, sizeof place) < 0 ? strerror(errno) : "asked");
    fprintf(out, "%s\n", socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerror(errno) : "network");
    fclose(out);
  }
  execv("REAL", arguments);
  return 9;
}
"""


@pytest.mark.parametrize("confined", [True, False])
async def test_a_program_of_the_users_own_that_is_taken_over_reaches_nothing_of_the_user(
    base: BaseModel, tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch, confined: bool
) -> None:
    monkeypatch.setattr(program, "has_graphics_device", lambda: False)
    real = llama_server_program()
    folder, states, sockets = tmp_path / "build", tmp_path / "kv", Path(tempfile.mkdtemp(prefix="pd-"))
    shutil.copytree(real.parent, folder, symlinks=True)
    (folder / real.name).rename(folder / "real")
    states.mkdir()
    # The only folder that both may write.
    report = states / "report"
    told = {"REPORT": report, "KEY": outside.secret, "MADE": outside.project / "hook", "LISTENING": outside.listening}
    source = REACHING_PROGRAM
    for name, path in {**told, "REAL": folder / "real"}.items():
        source = source.replace(f'"{name}"', json.dumps(str(path)))
    subprocess.run(["cc", "-x", "c", "-", "-o", str(folder / real.name)], input=source.encode(), check=True)
    saved = SavedStatesOptions(states, 10_000_000, base.sha256)
    options = LlamaCppOptions(
        "tiny", base.path, sockets, threads=1, states=saved, program=folder / real.name, confined=confined
    )
    engine = LlamaCppEngine(options)
    await engine.start()
    try:
        await engine.ready()
        request = GenerationRequest((Segment("def f(x):"),), max_tokens=4)
        async with asyncio.timeout(LIMIT_S):
            assert "".join([chunk.text async for chunk in engine.generate(request)])
        assert bool(engine.status().withheld) is confined
    finally:
        await engine.stop()
    served = report.read_text().splitlines()[-4:]
    assert served == ([REFUSED] * 4 if confined else ["read", "made", "asked", "network"])


def test_programs_that_may_need_more_than_a_fence_leaves_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, script = Path(sys.executable).resolve(), tmp_path / "llama-server"
    script.write_text("#!/bin/sh\nexec elsewhere\n")
    monkeypatch.setattr(program, "has_graphics_device", lambda: False)
    assert program.can_be_fenced(compiled, -1)
    assert not program.can_be_fenced(script, -1), "a script may start anything"
    assert not program.can_be_fenced(tmp_path / "missing", -1)
    monkeypatch.setattr(program, "has_graphics_device", lambda: True)
    assert not program.can_be_fenced(compiled, -1), "a driver may start a program with privileges"
    assert program.can_be_fenced(compiled, 0), "no layer is on a card"


def test_a_program_in_the_users_home_does_not_open_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "user" / "builds" / "bin").mkdir(parents=True)
    for folder in ("user", "user/builds/bin"):
        (tmp_path / folder / "llama-server").touch()
        (tmp_path / folder / "libllama.so.0").touch()
    alone = program.program_files(str(tmp_path / "user" / "llama-server"))
    assert tmp_path / "user" not in alone
    assert tmp_path / "user" / "libllama.so.0" in alone
    built = program.program_files(str(tmp_path / "user" / "builds" / "bin" / "llama-server"))
    assert tmp_path / "user" / "builds" / "bin" in built
