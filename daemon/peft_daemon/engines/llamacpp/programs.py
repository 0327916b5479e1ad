"""The llama.cpp programs of this machine: which there are, what they say of themselves, and how fast they are."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from peft_core.errors import EngineFailed, PeftDaemonError
from peft_core.paths import Paths
from peft_core.processes import find_program, python_code, run
from peft_core.processor import processor_flags, processor_name
from peft_core.settings import WHEEL, Settings
from peft_daemon.engines.base import EngineSpeed
from peft_daemon.engines.builds.builder import list_builds
from peft_daemon.engines.builds.source import SERVER
from peft_daemon.engines.factory import server_program
from peft_daemon.engines.llamacpp.choice import MeasuredProgram, ProgramStamp, wheel_version
from peft_daemon.engines.llamacpp.program import listed_devices
from peft_daemon.engines.speed import measure_speed
from peft_daemon.models.catalogue import ModelEntry

ANSWER_LIMIT_S = 30.0
"""Longest wait for what a program says of itself; a graphics driver may take seconds to load."""

ROUNDS = 2
"""Turns of each program in a measurement."""

ProgramKind = Literal["wheel", "build", "path", "setting"]


@dataclass(frozen=True)
class Program:
    """A llama.cpp that this machine has."""

    kind: ProgramKind
    path: Path | None
    """None: the wheel."""

    @property
    def setting(self) -> str:
        """The value of ``llama_server`` that names it."""
        return WHEEL if self.path is None else str(self.path)


def find_programs(settings: Settings, paths: Paths) -> list[Program]:
    """Return the wheel, what was compiled here, the ``llama-server`` on PATH, and the one that the settings name.

    Starts nothing. Raises InvalidInput if the setting names a program that is not there.
    """
    found: list[Program] = [Program("wheel", None)]
    found += [Program("build", build.server) for build in list_builds(paths)]
    if (on_path := find_program(SERVER)) is not None:
        found.append(Program("path", Path(on_path)))
    if (named := server_program(settings)) is not None and named not in [program.path for program in found]:
        found.append(Program("setting", named))
    return found


class ProgramFacts(msgspec.Struct, frozen=True):
    """What a program says of itself."""

    version: str = ""
    devices: tuple[str, ...] = ()
    """Graphics cards that it can compute on."""
    features: tuple[str, ...] = ()
    """Instructions of the processor that its code uses."""

    @property
    def lacking(self) -> tuple[str, ...]:
        """Those of them that this processor does not have, so that the program would die; known on x86 Linux only."""
        has = processor_flags()
        return tuple(name for name in self.features if has and name in _FLAGS and _FLAGS[name] not in has)


def ask_program(program: Program) -> ProgramFacts:
    """Start the program to ask for its version, devices and processor features; what it does not say is empty."""
    if program.path is None:
        return _ask_wheel()
    path = str(program.path)
    about = re.search(r"version:\s*(.+)", _output([path, "--version"]))
    # It prints what it was built with before it misses the model.
    nowhere = os.path.join(os.sep, "nowhere", "no-model.gguf")  # noqa: PTH118
    system = _output([path, "--model", nowhere, "--host", "127.0.0.1", "--port", "0", "--verbosity", "5"])
    return ProgramFacts(
        version=about[1].strip() if about else "",
        devices=listed_devices(_output([path, "--list-devices"])),
        features=_features(system),
    )


def _ask_wheel() -> ProgramFacts:
    # In a process of its own: loading native code takes 100 MB.
    said = _output(python_code("import xllamacpp; print(xllamacpp.get_system_info())"))
    metal = ("Metal",) if sys.platform == "darwin" else ()
    return ProgramFacts(f"xllamacpp {wheel_version()}", metal, _features(said))


def _output(command: Sequence[str]) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ANSWER_LIMIT_S,
        )
        return str(done.stdout, "utf-8", "replace")
    return ""


_FLAGS = {
    **{"AVX": "avx", "AVX2": "avx2", "AVX_VNNI": "avx_vnni", "BMI2": "bmi2", "F16C": "f16c", "FMA": "fma"},
    **{"AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni", "AVX512_BF16": "avx512_bf16"},
    **{"AMX_INT8": "amx_int8", "SSE3": "pni", "SSSE3": "ssse3"},
}
"""Instruction sets by their names in llama.cpp, and in Linux's list of the processor's flags."""
_NO_INSTRUCTIONS = frozenset({"ACCELERATE", "LLAMAFILE", "OPENMP", "REPACK"})


def _features(said: str) -> tuple[str, ...]:
    """Return the instruction sets in llama.cpp's line of system information, as in ``AVX2 = 1``."""
    lines = [line for line in said.splitlines() if "CPU :" in line or "system_info" in line]
    named = re.findall(r"\b([A-Z][A-Z0-9_]+) = 1\b", " ".join(lines or [said]))
    return tuple(name for name in dict.fromkeys(named) if name not in _NO_INSTRUCTIONS)


async def measure_programs(
    programs: Sequence[Program],
    settings: Settings,
    entry: ModelEntry,
    path: Path,
    *,
    on_start: Callable[[Program], None],
    on_failure: Callable[[Program, PeftDaemonError], None],
) -> list[MeasuredProgram]:
    """Measure each program and the wheel with the model at ``path``, taking turns; some ten seconds each turn.

    The best turn of each counts: other programs only make one slower. A program that cannot be measured is told to
    ``on_failure`` and left out. Raises what the wheel's engine raises.
    """
    if not any(program.path for program in programs):
        return []
    # The measured text repeats: guessing ahead would flatter.
    settings = msgspec.structs.replace(settings, speculation="off", slots=1)
    wheel = Program("wheel", None)
    facts = {each: ask_program(each) for each in programs if each.path is not None}
    speeds: dict[Program, list[EngineSpeed]] = {wheel: [], **{each: [] for each in facts}}
    for _ in range(ROUNDS):
        for program in list(speeds):
            on_start(program)
            try:
                if program.path is not None and (lacking := facts[program].lacking):
                    raise EngineFailed("it cannot run here", why=f"this processor has no {', '.join(lacking)}")
                one = msgspec.structs.replace(settings, llama_server=program.setting)
                speeds[program].append(await measure_speed(one, entry, path))
            except PeftDaemonError as error:
                if program.path is None:
                    raise
                del speeds[program]
                on_failure(program, error)
    base = _best(speeds.pop(wheel))
    return [
        MeasuredProgram(
            program=ProgramStamp.of(program.path),
            wheel=wheel_version(),
            model=entry.id,
            model_sha256=entry.sha256,
            processor=processor_name(),
            devices=facts[program].devices if settings.gpu_layers else (),
            reading=(best := _best(rounds)).reading,
            writing=best.writing,
            wheel_reading=base.reading,
            wheel_writing=base.writing,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        for program, rounds in speeds.items()
        if program.path is not None
    ]


def _best(rounds: Sequence[EngineSpeed]) -> EngineSpeed:
    return EngineSpeed(max(each.reading for each in rounds), max(each.writing for each in rounds))
