"""``doctor``: check this installation by using it."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from peft_cli.output import Json, emit, expected, run
from peft_cli.upstream import check_upstream
from peft_core import __version__
from peft_core.api_types import Task
from peft_core.errors import EngineFailed, UnusableFile, UnusablePath
from peft_core.fence import describe_fence
from peft_core.files import format_bytes, require_private_folder
from peft_core.home_format import is_newer_home, require_known_format
from peft_core.memory import read_memory
from peft_core.paths import Paths
from peft_core.processes import find_program
from peft_core.settings import Settings, resolve
from peft_core.status_types import LLAMACPP, UPSTREAM, EngineState
from peft_daemon.engines import factory
from peft_daemon.engines.base import default_threads
from peft_daemon.engines.llamacpp.choice import choose_program
from peft_daemon.engines.speed import measure_speed
from peft_daemon.models.catalogue import memory_shortage, open_catalogue
from peft_daemon.models.store import open_store


class Check(msgspec.Struct, frozen=True):
    """The result of one check of ``doctor``."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add ``doctor`` to the command line."""
    app.command()(doctor)


def doctor(
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", help="Also write a report for somebody who helps: a ZIP file without code and secrets."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the installation by using it: model hash, engine speed, daemon, adapters. Exit code 1 if a check fails.

    \b
    Example:
      peft-daemon doctor
      peft-daemon doctor --json
      peft-daemon doctor --report peft-daemon.zip
    """
    paths = Paths.from_environment()
    resolved = resolve(user_file=paths.config_file)
    settings = resolved.settings
    checks = [
        _run_check("system", _check_system),
        _run_check("folders", lambda: _check_folders(paths)),
        *_check_contents(settings, paths),
    ]

    written = None
    if report is not None:
        from peft_cli.doctor_report import write_report

        written = write_report(report.absolute(), checks, resolved, paths)

    def text() -> None:
        for check in checks:
            typer.echo(f"{'ok ' if check.ok else 'BAD'}  {check.name:<9} {check.detail}")
            if check.fix:
                typer.echo(f"               → {check.fix}")
        if written is not None:
            typer.echo(
                f"report: {written.path}, {format_bytes(written.bytes)}; nothing was sent. Its README.txt says what"
            )
            typer.echo("is in it and what was replaced: read it before you send it to anybody")

    emit({"checks": checks, **({"report": written} if written else {})}, as_json=as_json, text=text)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _check_contents(settings: Settings, paths: Paths) -> list[Check]:
    """Check what lies in the home; of one that a newer version has written nothing is read but what runs."""
    if is_newer_home(paths):
        return [
            _run_check("files", lambda: _check_format(paths)),
            _run_check("daemon", lambda: check_daemon(paths)),
        ]
    return [
        _run_check("model", lambda: _check_model(settings, paths, Task.FILL)),
        _run_check("engine", lambda: f"{_check_engine(settings, paths, Task.FILL)}. {_why_engine(settings, paths)}"),
        *([_run_check("sentences", lambda: _check_sentences(settings, paths))] if settings.intent_model else []),
        *([_run_check("upstream", lambda: check_upstream(settings, paths))] if settings.engine == UPSTREAM else []),
        _run_check("fence", lambda: _check_fence(settings, paths)),
        _run_check("daemon", lambda: check_daemon(paths)),
        _run_check("adapters", lambda: _check_adapters(settings, paths)),
    ]


def _run_check(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except Exception as failure:
        # Any error of a check must not prevent the other checks.
        error = expected(failure)
        return Check(name, False, f"{error.what}: {error.why}" if error.why else error.what, error.fix)


def _check_system() -> str:
    native = importlib.metadata.version("xllamacpp")
    return (
        f"peft-daemon {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{default_threads()} threads, llama.cpp from xllamacpp {native}"
    )


def _check_folders(paths: Paths) -> str:
    for folder in (paths.config, paths.data, paths.state, paths.runtime):
        if not os.access(require_private_folder(folder), os.W_OK):
            raise UnusablePath(PermissionError(errno.EACCES, "it cannot be written", str(folder)))
    free = shutil.disk_usage(paths.data).free / 1e9
    return f"private; data in {paths.data}, {free:.0f} GB free"


def _check_format(paths: Paths) -> str:
    require_known_format(paths)
    return "of a format that is known"


def _check_model(settings: Settings, paths: Paths, task: Task) -> str:
    entry, store = open_catalogue(paths).by_task(settings)[task], open_store(settings, paths)
    model, served = store.verify(entry), store.file_to_serve(entry, settings)
    copy = f"; served as its copy {served.path.name}" if served.recipe else ""
    return f"{model.id}, sha256 verified, {model.bytes / 1e6:.0f} MB, {model.path}{copy}"


def _check_engine(settings: Settings, paths: Paths, task: Task) -> str:
    model = open_catalogue(paths).by_task(settings)[task]
    path = open_store(settings, paths).file_to_serve(model, settings).path
    choice = choose_program(settings, paths, model.sha256)
    measured = msgspec.structs.replace(settings, llama_server=str(choice.program)) if choice.program else settings
    try:
        speed = run(measure_speed(measured, model, path))
    except EngineFailed as error:
        if not choice.chosen:
            raise
        raise EngineFailed(
            f"{choice.program} cannot be used, so the package's own llama.cpp is",
            why=error.why or error.what,
            fix="`peft-daemon engine measure` chooses again; `peft-daemon engine build` compiles one anew",
        ) from None
    problem = f". {choice.problem}" if choice.problem else ""
    engine = factory.engine_id(settings, model)
    return f"{engine}: reads {speed.reading:.0f} tok/s, writes {speed.writing:.0f} tok/s{problem}"


def _check_fence(settings: Settings, paths: Paths) -> str:
    """Describe what an engine cannot reach; a system that has no means for it is no fault of the installation."""
    if settings.confine_engines == "off":
        return "engines have all files and the network: `confine_engines` is off"
    model = open_catalogue(paths).by_task(settings)[Task.FILL]
    program = choose_program(settings, paths, model.sha256).program
    if program is not None and factory.engine_id(settings, model) == LLAMACPP:
        return f"{program} has all files and the network: its driver may need them"
    return describe_fence()


def _check_sentences(settings: Settings, paths: Paths) -> str:
    """Describe the model that answers sentences; what both models need of memory is told where it is not there."""
    from peft_daemon.lifecycle.runtime_info import find_running_daemon

    models = {entry.id: entry for entry in open_catalogue(paths).by_task(settings).values()}
    if len(models) == 1:
        return f"{settings.intent_model}, as for filling in"
    found = f"{_check_model(settings, paths, Task.INTENT)}. {_check_engine(settings, paths, Task.INTENT)}"
    if find_running_daemon(paths) is not None:  # it has loaded one of them, and warns itself
        return found
    shortage = memory_shortage([*models.values()], read_memory().available)
    return f"{found}. Warning: {shortage}" if shortage else found


def _why_engine(settings: Settings, paths: Paths) -> str:
    model = open_catalogue(paths).by_task(settings)[Task.FILL]
    choice = choose_program(settings, paths, model.sha256)
    if factory.engine_id(settings, model) == LLAMACPP and choice.program is not None:
        return f"It runs {choice.program}: {choice.why}"
    if settings.engine == UPSTREAM:
        return "It answers while the upstream server does not"
    if settings.engine != "auto":
        return f"Chosen because `engine` is {settings.engine}"
    if model.folder is not None:
        return "Chosen because the model is a folder in transformers' layout"
    return _why_not_torch()


def _why_not_torch() -> str:
    if find_program("nvidia-smi") is None:
        return "Chosen because there is no CUDA device"
    if importlib.util.find_spec("torch") is None:
        return "There is a CUDA device, but torch is not installed"
    return "There is a CUDA device: `PEFT_DAEMON_ENGINE=torch peft-daemon start` uses it"


def check_daemon(paths: Paths) -> str:
    """Describe the daemon in a line, and end processes of earlier daemons.

    Raises PeftDaemonError if it is unwell.
    """
    from peft_daemon.client import DaemonClient
    from peft_daemon.lifecycle.installations import with_other
    from peft_daemon.lifecycle.runtime_info import find_running_daemon
    from peft_daemon.lifecycle.stop import end_orphans

    ended = end_orphans(paths)
    left = f"; ended {ended} process{'es' if ended > 1 else ''} of an earlier daemon" if ended else ""
    if (info := find_running_daemon(paths)) is None:
        return "not running (editors and `peft-daemon start` start it)" + left

    async def ask() -> str:
        async with await DaemonClient.connect(start=False) as client:
            status = await client.status()
        engine, second = status.engine, status.intent_engine
        for each, which in ((engine, "its engine"), (second, "its engine for sentences")):
            if each is not None and each.state is EngineState.FAILED:
                raise EngineFailed(
                    f"running, pid {status.pid}, but {which} failed",
                    why=each.last_error,
                    fix=each.fix,
                )
            if each is not None and not each.responding:
                raise EngineFailed(
                    f"running, pid {status.pid}, but {which} does not answer",
                    why="its process runs but does not respond",
                    fix="The next request replaces it; `peft-daemon stop` ends it",
                )
        engines = f"engine {engine.state}" + (f", engine for sentences {second.state}" if second else "")
        warnings = "".join(f". Warning: {line}" for line in with_other(status.warnings, info))
        return f"running, pid {status.pid}, {engines}, {status.memory_bytes / 1e6:.0f} MB{left}{warnings}"

    return run(ask())


def _check_adapters(settings: Settings, paths: Paths) -> str:
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
