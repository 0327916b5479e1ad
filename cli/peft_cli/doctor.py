"""``doctor``: checks each part of the installation by using it, and says what to type where one fails."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import typer

from peft_cli.output import Json, emit, expected, run
from peft_core import __version__
from peft_core.api_types import EngineState
from peft_core.errors import EngineFailed, UnusableFile, UnusablePath
from peft_core.files import require_private_folder
from peft_core.paths import Paths
from peft_core.processes import find_program
from peft_core.settings import Settings, resolve
from peft_daemon.engines import factory
from peft_daemon.engines.base import Finish, GenerationRequest, Segment, default_threads
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

PROMPT_LINES = 24
DECODE_TOKENS = 32


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(doctor)


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor(as_json: Json = False) -> None:
    """Check the installation by using it: model hash, engine speed, daemon, adapters. Exit code 1 if a check fails.

    \b
    Example:
      peft-daemon doctor
      peft-daemon doctor --json
    """
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    checks = [
        _check("system", _system),
        _check("folders", lambda: _folders(paths)),
        _check("model", lambda: _model(settings, paths)),
        _check("engine", lambda: _engine(settings, paths)),
        _check("daemon", lambda: _daemon(paths)),
        _check("adapters", lambda: _adapters(settings, paths)),
    ]

    def text() -> None:
        for check in checks:
            typer.echo(f"{'ok ' if check.ok else 'BAD'}  {check.name:<9} {check.detail}")
            if check.fix:
                typer.echo(f"               → {check.fix}")

    emit({"checks": checks}, as_json=as_json, text=text)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except Exception as failure:
        # A check that fails in any way must not keep the others from being made.
        error = expected(failure)
        return Check(name, False, f"{error.what}: {error.why}" if error.why else error.what, error.fix)


def _system() -> str:
    native = importlib.metadata.version("xllamacpp")
    return (
        f"peft-daemon {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{default_threads()} threads, llama.cpp from xllamacpp {native}"
    )


def _folders(paths: Paths) -> str:
    for folder in (paths.config, paths.data, paths.state, paths.runtime):
        if not os.access(require_private_folder(folder), os.W_OK):
            raise UnusablePath(PermissionError(errno.EACCES, "it cannot be written", str(folder)))
    free = shutil.disk_usage(paths.data).free / 1e9
    return f"private; data in {paths.data}, {free:.0f} GB free"


def _model(settings: Settings, paths: Paths) -> str:
    entry, store = catalogue.get(settings.model), open_store(settings, paths)
    model, served = store.verify(entry), store.served(entry, settings)
    copy = f"; served as its copy {served.path.name}" if served.recipe else ""
    return f"{model.id}, sha256 verified, {model.bytes / 1e6:.0f} MB, {model.path}{copy}"


def _engine(settings: Settings, paths: Paths) -> str:
    prefill, decode = run(_measure(settings, paths))
    return f"{factory.engine_id(settings)}: reads {prefill:.0f} tok/s, writes {decode:.0f} tok/s. {_why(settings)}"


def _why(settings: Settings) -> str:
    if settings.engine != "auto":
        return f"Chosen because `engine` is {settings.engine}"
    if find_program("nvidia-smi") is None:
        return "Chosen because there is no CUDA device"
    if importlib.util.find_spec("torch") is None:
        return "There is a CUDA device, but torch is not installed"
    return "There is a CUDA device: `PEFT_DAEMON_ENGINE=torch peft-daemon start` uses it"


async def _measure(settings: Settings, paths: Paths) -> tuple[float, float]:
    """Tokens per second, reading a prompt and writing, in an engine of its own."""
    model = catalogue.get(settings.model)
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        engine = factory.create_engine(
            settings,
            model_id=model.id,
            model_path=open_store(settings, paths).served(model, settings).path,
            context_tokens=min(settings.context_tokens, model.context_tokens),
            socket_folder=Path(folder),
        )
        await engine.start()
        try:
            await engine.ready()
            text = "".join(f"def f{n}(x, y):\n    return x * {n} + y\n\n" for n in range(PROMPT_LINES))
            request = GenerationRequest((Segment(text),), DECODE_TOKENS)
            async for item in engine.generate(request):
                if isinstance(item, Finish):
                    t = item.timings
                    return 1000 * t.prompt_evaluated / max(t.prompt_ms, 1), 1000 * t.decode_tokens / max(t.decode_ms, 1)
        finally:
            await engine.stop()
    return 0.0, 0.0


def _daemon(paths: Paths) -> str:
    from peft_daemon.client import DaemonClient
    from peft_daemon.lifecycle.runtime_info import find_running_daemon
    from peft_daemon.lifecycle.stop import end_orphans

    ended = end_orphans(paths)
    left = f"; ended {ended} process{'es' if ended > 1 else ''} of an earlier daemon" if ended else ""
    if find_running_daemon(paths) is None:
        return "not running (editors and `peft-daemon start` start it)" + left

    async def ask() -> str:
        async with await DaemonClient.connect(start=False) as client:
            status = await client.status()
        engine = status.engine
        if engine.state is EngineState.FAILED:
            raise EngineFailed(
                f"running, pid {status.pid}, but its engine failed",
                why=engine.last_error.removesuffix(f". {engine.fix}"),
                fix=engine.fix,
            )
        if not engine.responding:
            raise EngineFailed(
                f"running, pid {status.pid}, but its engine does not answer",
                why="its process lives and does nothing",
                fix="The next request has it ended and replaced, and so does `peft-daemon stop`",
            )
        return f"running, pid {status.pid}, engine {engine.state}, {status.memory_bytes / 1e6:.0f} MB{left}"

    return run(ask())


def _adapters(settings: Settings, paths: Paths) -> str:
    from peft_daemon.adapters.registry import AdapterRegistry

    adapters = AdapterRegistry(paths.adapters).list_adapters(check=True)
    if damaged := [adapter for adapter in adapters if adapter.damaged]:
        first = damaged[0]
        raise UnusableFile(
            f"{', '.join(adapter.name for adapter in damaged)} cannot be used",
            why=first.damaged,
            fix=f"Import it again with `peft-daemon adapters import FOLDER --name {first.name}`, or remove it with "
            f"`peft-daemon adapters remove {first.name} --force`",
        )
    used = [f"{a.name} for {where}" for a in adapters for where in a.active_for]
    return f"{len(adapters)} stored, in use: {', '.join(used) or 'none'}"
