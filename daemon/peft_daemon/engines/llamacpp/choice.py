"""Which llama.cpp serves where ``llama_server`` is auto: the one that was measured to be the fastest.

A measurement compares a program with the package's own llama.cpp in one run, because only figures of one run compare.
It is kept with what tells whether it still holds: the program's file, the wheel's version, the model, the processor.
Choosing reads these figures and looks at files; it starts nothing, so it may happen in any folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from peft_core.errors import PeftDaemonError
from peft_core.files import private_folder, read_private, write_private
from peft_core.paths import Paths
from peft_core.processor import processor_name
from peft_core.settings import AUTO, WHEEL, Settings
from peft_core.status_types import TORCH
from peft_daemon.engines.factory import server_program

READ_TOKENS, WRITTEN_TOKENS = 100, 20
"""A typical suggestion: programs are compared by the time that one takes."""
LEAST_GAIN = 1.05
"""A program that is faster by less is not taken: measurements differ by as much."""
MEASURE_AGAIN = "`peft-daemon engine measure` measures again"


class ProgramStamp(msgspec.Struct, frozen=True):
    """What tells whether a program's file is still the same."""

    path: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> ProgramStamp:
        """Return the stamp of the file now; raises OSError."""
        info = path.stat()
        return cls(str(path), info.st_size, info.st_mtime_ns)


class MeasuredProgram(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second of a program and, in the same run, of the wheel."""

    program: ProgramStamp
    wheel: str
    """Version of the wheel it was compared with."""
    model: str
    model_sha256: str
    """Of the base model, also where its optimized copy was measured."""
    processor: str
    devices: tuple[str, ...]
    """Graphics cards that the program computed on; none: the processor."""
    reading: float
    writing: float
    wheel_reading: float
    wheel_writing: float
    measured: str
    """UTC, ISO 8601."""

    @property
    def gain(self) -> float:
        """How many times as fast as the wheel it makes a typical suggestion; 0 if one of them could not be measured."""
        own, wheel = _seconds(self.reading, self.writing), _seconds(self.wheel_reading, self.wheel_writing)
        return wheel / own if own and wheel else 0.0


class _Measurements(msgspec.Struct, frozen=True):
    programs: tuple[MeasuredProgram, ...] = ()


@dataclass(frozen=True)
class ProgramChoice:
    """Which llama.cpp serves, and why."""

    program: Path | None
    """None: the wheel."""
    why: str
    chosen: bool = False
    """Whether the measurements chose the program, so that the wheel steps in if it cannot start."""
    problem: str = ""
    """What keeps the fastest program from being used; empty for nothing."""


def choose_program(settings: Settings, paths: Paths, model_sha256: str) -> ProgramChoice:
    """Return the program that ``llama_server`` names, or with ``auto`` the one measured to be the fastest.

    Starts nothing. Raises InvalidInput if the setting names a program that is not there.
    """
    if settings.engine == TORCH:
        return ProgramChoice(None, "the torch engine runs")
    if settings.llama_server != AUTO:
        program = server_program(settings)
        return ProgramChoice(program, "`llama_server` names it" if program else "`llama_server` is wheel")
    problem = ""
    for each in sorted(read_measurements(paths), key=lambda each: each.gain, reverse=True):
        if each.model_sha256 != model_sha256 or each.gain < LEAST_GAIN:
            continue
        if outdated := _outdated(each):
            problem = problem or f"{outdated}; {MEASURE_AGAIN}"
            continue
        why = f"measured to be {each.gain:.2f} times as fast as the package's ({each.measured[:10]})"
        return ProgramChoice(Path(each.program.path), why, chosen=True, problem=problem)
    return ProgramChoice(None, "no other program was measured to be faster with this model", problem=problem)


def with_chosen_program(settings: Settings, paths: Paths, model_sha256: str) -> Settings:
    """Return ``settings`` in which ``llama_server`` names what ``auto`` takes; raises InvalidInput as that does."""
    choice = choose_program(settings, paths, model_sha256)
    return msgspec.structs.replace(settings, llama_server=str(choice.program or WHEEL))


def measurement_of(program: Path | None, paths: Paths, model_sha256: str) -> MeasuredProgram | None:
    """Return the kept measurement of a program with a model if it still holds; for the wheel (None) the newest one."""
    valid = [m for m in read_measurements(paths) if m.model_sha256 == model_sha256 and not _outdated(m)]
    if program is not None:
        valid = [m for m in valid if m.program.path == str(program)]
    return max(valid, key=lambda m: m.measured, default=None)


def read_measurements(paths: Paths) -> tuple[MeasuredProgram, ...]:
    """Return the kept measurements; none if the file cannot be read or trusted: they are only figures."""
    try:
        content = read_private(paths.program_speeds)
        return () if content is None else msgspec.json.decode(content, type=_Measurements).programs
    except (OSError, ValueError, RecursionError, PeftDaemonError):
        return ()


def keep_measurements(paths: Paths, new: list[MeasuredProgram]) -> None:
    """Add measurements; those of the same file and model are replaced, those of files that are gone forgotten.

    Raises UnusablePath if the file cannot be written.
    """
    replaced = {(each.program.path, each.model_sha256) for each in new}
    kept = [
        each
        for each in read_measurements(paths)
        if (each.program.path, each.model_sha256) not in replaced and Path(each.program.path).is_file()
    ]
    private_folder(paths.program_speeds.parent)
    content = msgspec.json.format(msgspec.json.encode(_Measurements((*kept, *new))), indent=2) + b"\n"
    write_private(paths.program_speeds, content)


def wheel_version() -> str:
    """Return the version of the package's own llama.cpp."""
    return version("xllamacpp")


def _outdated(measured: MeasuredProgram) -> str:
    """Return why a measurement does not hold any more; empty if it does."""
    path = measured.program.path
    try:
        now = ProgramStamp.of(Path(path))
    except OSError:
        return f"{path}, which was the fastest, is gone"
    if now != measured.program:
        return f"{path} has changed since it was measured"
    if measured.wheel != wheel_version():
        return f"{path} was compared with another version of the package's llama.cpp"
    if measured.processor != processor_name():
        return f"{path} was measured on another processor"
    return ""


def _seconds(reading: float, writing: float) -> float:
    return READ_TOKENS / reading + WRITTEN_TOKENS / writing if reading and writing else 0.0
