"""``engine``: compile llama.cpp for this machine, list the programs that can run the model, and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from peft_cli.output import Json, emit, run, termination_interrupts
from peft_core.errors import Cancelled, InvalidInput, NotFound, PeftDaemonError, UnusablePath
from peft_core.files import format_bytes
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.store import open_store

if TYPE_CHECKING:
    from peft_daemon.engines.builds.builder import InstalledBuild
    from peft_daemon.engines.llamacpp.choice import MeasuredProgram
    from peft_daemon.engines.llamacpp.programs import Program

app = typer.Typer(
    help="Compile llama.cpp for this machine, and find out which one is the fastest here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

UNTIL_STOPPED = "a running daemon goes on with its own until `peft-daemon stop`"


class BuiltEngine(msgspec.Struct, frozen=True, kw_only=True):
    """What ``engine build --json`` prints."""

    name: str
    path: str
    """Its ``llama-server``."""
    version: str
    device: str
    why: str
    """Why this device."""
    compiled: bool
    """False: it was there already."""
    seconds: float
    """What compiling took, now or earlier."""
    gain: float | None
    """How many times as fast as the package's llama.cpp; null: not measured."""
    in_use: bool
    """Whether the next start of the daemon uses it."""


class ProgramRow(msgspec.Struct, frozen=True, kw_only=True):
    """One program as ``engine list --json`` prints it."""

    kind: str
    """``wheel`` (the package's own), ``build``, ``path`` (found on PATH) or ``setting`` (`llama_server` names it)."""
    path: str | None
    version: str
    devices: tuple[str, ...]
    """Graphics cards that it can compute on."""
    features: tuple[str, ...]
    """Instructions of the processor that its code uses."""
    lacking: tuple[str, ...]
    """Those that this processor does not have: the program cannot run here."""
    reading: float | None
    """Tokens per second; null: not measured, or not since one of the programs changed."""
    writing: float | None
    gain: float | None
    """How many times as fast as the wheel in the same run."""
    measured: str | None
    model: str
    in_use: bool


class ProgramList(msgspec.Struct, frozen=True, kw_only=True):
    """What ``engine list --json`` prints."""

    programs: tuple[ProgramRow, ...]
    why: str
    """Why the one in use is used."""
    problem: str
    """What keeps the fastest one from being used; empty: nothing does."""


@app.command("build", epilog="Example: peft-daemon engine build --device cpu")
def build_engine(
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, vulkan or metal; auto: the graphics card, if it can be used here.")
    ] = "auto",
    jobs: Annotated[
        int, typer.Option(min=0, max=1024, help="Compilers at a time; 0: one per core, fewer if memory is short.")
    ] = 0,
    local: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Use this archive of the sources; fetch nothing.")
    ] = None,
    measure: Annotated[bool, typer.Option(help="Measure it when it is done, and use it if it is faster.")] = True,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete all builds, and what is kept of unfinished ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compile llama.cpp with all instructions of this processor, and for its graphics card.

    Takes 5 to 30 minutes, and 1 GB of disk meanwhile. Needs CMake and a C++ compiler. An interrupted build is
    continued; a finished one is found again.
    """
    from peft_cli.progress_view import build_view
    from peft_daemon.engines.builds.builder import Builder, BuildOptions
    from peft_daemon.engines.builds.toolchain import DEVICES, choose_device

    settings, paths = _resolved()
    if remove:
        _remove(paths, as_json=as_json)
        return
    if device != "auto" and device not in DEVICES:
        raise InvalidInput(f"there is no device '{device}'", fix=f"Use auto, {', '.join(DEVICES)}")
    chosen, why = next(((each, "asked for") for each in DEVICES if each == device), None) or choose_device()
    options = BuildOptions(device=chosen, jobs=jobs, local=local, offline=settings.offline)
    try:
        with termination_interrupts(), build_view() as progress:
            progress.note(f"device: {chosen} ({why})")
            builder = Builder(options, paths, progress)
            missing = builder.find() is None
            build = builder.run()
            if missing:
                progress.note(f"compiled and in place: {build.server}")
    except KeyboardInterrupt:
        raise Cancelled(
            "the build was interrupted",
            why="what was fetched and compiled is kept",
            fix="Type `peft-daemon engine build` with the same options to go on",
        ) from None
    if measure:
        _measure_build(build, settings, paths)
    result = _built(build, settings, paths, why=why, compiled=missing)
    emit(result, as_json=as_json, text=lambda: _print_built(result))


@app.command("list", epilog="Example: peft-daemon engine list --measure")
def list_engines(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure those first that were not measured yet; 10 to 20 s each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the llama.cpp programs of this machine: versions, devices, speed, and which one is used.

    Each is started to be asked what it is: the package's own, your builds, and the `llama-server` on PATH.
    """
    settings, paths = _resolved()
    if measure:
        _measure(settings, paths, again=False)
    found = _list(settings, paths)
    emit(found, as_json=as_json, text=lambda: _print_programs(found))


@app.command("measure", epilog="Example: peft-daemon engine measure")
def measure_engines(as_json: Json = False) -> None:
    """Measure how fast each llama.cpp program of this machine reads and writes; 10 to 20 s each.

    With the setting `llama_server` at auto, the daemon uses the fastest from its next start on. Measure again after an
    update of the package or of a program.
    """
    settings, paths = _resolved()
    _measure(settings, paths, again=True)
    found = _list(settings, paths)
    emit(found, as_json=as_json, text=lambda: _print_programs(found))


def measure_builds(settings: Settings, paths: Paths) -> None:
    """Measure what was compiled here and was not measured with the model of ``settings``; notes go to stderr."""
    from peft_daemon.engines.builds.builder import list_builds

    for build in list_builds(paths):
        _measure_build(build, settings, paths)


def _measure_build(build: InstalledBuild, settings: Settings, paths: Paths) -> None:
    """Measure a build unless a measurement of it holds; a note where that is not possible."""
    from peft_daemon.engines.llamacpp.choice import measurement_of
    from peft_daemon.engines.llamacpp.programs import Program

    program, entry = Program("build", build.server), open_catalogue(paths).get(settings.model)
    if measurement_of(program.path, paths, entry.sha256) is not None:
        return
    if not open_store(settings, paths).is_installed(entry):
        typer.echo(f"not measured: {entry.id} is not installed. `peft-daemon engine measure` does it later", err=True)
        return
    try:
        _measure_programs([program], settings, paths, entry)
    except PeftDaemonError as error:
        typer.echo(f"not measured: {error.line}", err=True)


def _measure(settings: Settings, paths: Paths, *, again: bool) -> None:
    from peft_daemon.engines.llamacpp.choice import measurement_of
    from peft_daemon.engines.llamacpp.programs import find_programs

    entry = open_catalogue(paths).get(settings.model)
    others = [program for program in find_programs(settings, paths) if program.path is not None]
    wanted = [program for program in others if again or measurement_of(program.path, paths, entry.sha256) is None]
    if not others:
        typer.echo("nothing to measure: the package's own llama.cpp is the only one", err=True)
    if wanted:
        _measure_programs(wanted, settings, paths, entry)


def _measure_programs(programs: list[Program], settings: Settings, paths: Paths, entry: ModelEntry) -> None:
    from peft_daemon.engines.llamacpp.choice import keep_measurements
    from peft_daemon.engines.llamacpp.programs import measure_programs

    if entry.folder is not None:
        raise InvalidInput(
            f"llama.cpp cannot run '{entry.id}'",
            why="it is a folder in transformers' layout, for the torch engine",
            fix="Set `model` to one in a GGUF file",
        )
    path = open_store(settings, paths).file_to_serve(entry, settings).path

    async def measure() -> list[MeasuredProgram]:
        return await measure_programs(
            programs,
            settings,
            entry,
            path,
            on_start=lambda program: typer.echo(f"measuring {program.setting} with {entry.id}", err=True),
            on_failure=lambda program, error: typer.echo(
                f"{program.setting} cannot be measured: {error.line}", err=True
            ),
        )

    with termination_interrupts():
        keep_measurements(paths, run(measure()))


def _list(settings: Settings, paths: Paths) -> ProgramList:
    from peft_daemon.engines.llamacpp.choice import choose_program, measurement_of
    from peft_daemon.engines.llamacpp.programs import ask_program, find_programs

    entry = open_catalogue(paths).get(settings.model)
    choice = choose_program(settings, paths, entry.sha256)
    rows = []
    for program in find_programs(settings, paths):
        facts, measured = ask_program(program), measurement_of(program.path, paths, entry.sha256)
        own = program.path is None
        rows.append(
            ProgramRow(
                kind=program.kind,
                path=None if own else str(program.path),
                version=facts.version,
                devices=facts.devices,
                features=facts.features,
                lacking=facts.lacking,
                **_figures(measured, own=own),
                model=entry.id,
                in_use=program.path == choice.program,
            )
        )
    return ProgramList(programs=tuple(rows), why=choice.why, problem=choice.problem)


def _figures(measured: MeasuredProgram | None, *, own: bool) -> dict[str, Any]:
    """Return the fields of a row that a measurement fills; ``own``: those of the package's own llama.cpp."""
    if measured is None:
        return {"reading": None, "writing": None, "gain": None, "measured": None}
    if own:
        speeds = {"reading": measured.wheel_reading, "writing": measured.wheel_writing, "gain": 1.0}
    else:
        speeds = {"reading": measured.reading, "writing": measured.writing, "gain": measured.gain}
    return {**{name: round(value, 3) for name, value in speeds.items()}, "measured": measured.measured}


def _print_programs(found: ProgramList) -> None:
    cells: list[tuple[str, ...]] = [
        ("", "program", "version", "computes on", "reads", "writes", "as fast as the package's")
    ]
    for row in found.programs:
        device = ", ".join(row.devices) or f"the processor ({' '.join(row.features) or 'unknown code'})"
        speeds = (f"cannot run here: no {', '.join(row.lacking)}" if row.lacking else "not measured", "", "")
        if row.reading is not None and row.writing is not None and row.gain is not None and row.measured:
            speeds = (f"{row.reading:.0f} tok/s", f"{row.writing:.0f} tok/s", f"{row.gain:.2f} × ({row.measured[:10]})")
        cells.append(("*" if row.in_use else " ", row.path or "wheel", row.version, device, *speeds))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo(f"\n* in use: {found.why}")
    if found.problem:
        typer.echo(f"warning: {found.problem}")


def _built(build: InstalledBuild, settings: Settings, paths: Paths, *, why: str, compiled: bool) -> BuiltEngine:
    from peft_daemon.engines.llamacpp.choice import choose_program, measurement_of

    entry = open_catalogue(paths).get(settings.model)
    measured = measurement_of(build.server, paths, entry.sha256)
    return BuiltEngine(
        name=build.record.name,
        path=str(build.server),
        version=build.record.version,
        device=build.record.device,
        why=why,
        compiled=compiled,
        seconds=round(build.record.seconds, 1),
        gain=None if measured is None else round(measured.gain, 3),
        in_use=choose_program(settings, paths, entry.sha256).program == build.server,
    )


def _print_built(result: BuiltEngine) -> None:
    how = f"compiled in {result.seconds:.0f} s" if result.compiled else "was there already"
    typer.echo(f"build    {result.name}, {how}")
    typer.echo(f"program  {result.path}")
    if result.gain is not None:
        typer.echo(f"speed    {result.gain:.2f} times as fast as the package's llama.cpp")
    if result.in_use:
        typer.echo(f"use      from the daemon's next start on ({UNTIL_STOPPED})")
    elif result.gain is None:
        typer.echo("use      not until `peft-daemon engine measure` finds it faster")
    else:
        typer.echo(f'use      not used; `llama_server = "{result.path}"` would change that')


def _remove(paths: Paths, *, as_json: bool) -> None:
    from peft_daemon.engines.builds.builder import remove_builds

    try:
        freed = remove_builds(paths)
    except OSError as error:
        raise UnusablePath(error, paths.builds) from None
    if not freed:
        raise NotFound("there is no build of llama.cpp", fix="Make one with `peft-daemon engine build`")
    emit(
        {"freed_bytes": freed},
        as_json=as_json,
        text=lambda: typer.echo(f"all builds are deleted, {format_bytes(freed)} are free again; {UNTIL_STOPPED}"),
    )


def _resolved() -> tuple[Settings, Paths]:
    paths = Paths.from_environment()
    return resolve(user_file=paths.config_file).settings, paths
