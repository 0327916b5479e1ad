"""Compile llama.cpp for this machine: fetch, unpack, configure, compile, try, put in place.

Each step continues where an interrupted one stopped: the download, and the objects that were compiled. A build is in
the data folder, complete or not at all, under a name that says what it was made from; the same command finds it there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

import msgspec
import psutil

from peft_core.errors import Conflict, EngineFailed, is_full
from peft_core.files import (
    SHARED_MODE,
    atomic_folder,
    file_sha256,
    format_bytes,
    free_bytes,
    write_atomic,
)
from peft_core.http_download import DownloadProgress
from peft_core.paths import Paths
from peft_core.processes import trusted_search_path
from peft_core.processor import processor_digest, processor_name
from peft_daemon.engines.builds.commands import CommandFailed, first_error, output_lines
from peft_daemon.engines.builds.source import LLAMA_CPP, SERVER, SourceArchive, fetch, unpack
from peft_daemon.engines.builds.toolchain import Device, Toolchain, find_toolchain

RECORD_FILE = "build.json"
LOG_FILE = "build.log"
JOB_BYTES = 1_500_000_000
"""Memory that one compiler may take."""
ROOM_BYTES = 1_000_000_000
"""Disk that a build takes until it is in place, without CUDA."""
_COUNTED = re.compile(r"^\[\s*(\d+)(?:/(\d+)|%)\]")
"""How ninja (``[12/345]``) and make (``[ 12%]``) say how far they are."""

_OPTIONS = (
    *("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "GGML_NATIVE=ON"),
    *("LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF", "LLAMA_BUILD_SERVER=ON"),
    # Nothing is fetched while it is compiled, and the server has no pages, speaks no TLS and starts no programs.
    *("LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_SUBPROCESS=OFF"),
)
_OPTIONS_OF_DEVICE: Mapping[Device, tuple[str, ...]] = {
    "cpu": ("GGML_METAL=OFF",),
    "cuda": ("GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=native"),
    "vulkan": ("GGML_VULKAN=ON", "GGML_METAL=OFF"),
    "metal": ("GGML_METAL=ON",),
}


class BuildProgress(DownloadProgress, Protocol):
    """Receives the progress of a build: of its download, its steps, and what was compiled."""

    def compiled(self, done: int, total: int) -> None:
        """Receive that ``done`` of ``total`` files are compiled in this run; a percentage where ``total`` is 100."""


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``build.json``: what a build was made from and for."""

    name: str
    version: str
    """llama.cpp's build number."""
    device: Device
    source_sha256: str
    options: tuple[str, ...]
    compiler: str
    cmake: str
    processor: str
    seconds: float
    """What compiling it took, without interrupted runs."""
    created: str
    """UTC, ISO 8601."""
    sha256: dict[str, str]
    """Of each program."""


@dataclass(frozen=True)
class InstalledBuild:
    """A build that is in place."""

    folder: Path
    record: BuildRecord

    @property
    def server(self) -> Path:
        """Its ``llama-server``."""
        return self.program(SERVER)

    def program(self, name: str) -> Path:
        """Return the file of one of its programs."""
        return self.folder / _file_name(name)


@dataclass(frozen=True)
class BuildOptions:
    """What to compile, and how."""

    device: Device = "cpu"
    jobs: int = 0
    """Compilers at a time; 0: as many as there are cores and memory for."""
    local: Path | None = None
    """The archive of the sources, where it was fetched another way."""
    offline: bool = False
    archive: SourceArchive = LLAMA_CPP


class Builder:
    """One build in the folders of an installation."""

    def __init__(self, options: BuildOptions, paths: Paths, progress: BuildProgress) -> None:
        self._options, self._paths, self._progress = options, paths, progress

    @cached_property
    def _tools(self) -> Toolchain:
        return find_toolchain(self._options.device)

    @property
    def _cmake_options(self) -> tuple[str, ...]:
        archive, device = self._options.archive, self._options.device
        options = (*_OPTIONS, *_OPTIONS_OF_DEVICE[device], f"LLAMA_BUILD_NUMBER={archive.version}")
        nvcc = self._tools.nvcc if device == "cuda" else None
        return (*options, f"CMAKE_CUDA_COMPILER={nvcc}") if nvcc else options

    @property
    def name(self) -> str:
        """Return the build's name: version, device, and a hash of all that decides what comes out."""
        archive = self._options.archive
        parts = (archive.sha256, *archive.programs, *self._cmake_options, self._tools.compiler, processor_digest())
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return f"llama.cpp-{archive.version}-{self._options.device}-{digest[:12]}"

    def find(self) -> InstalledBuild | None:
        """Return this very build if it is in place; raises NotFound if a tool is missing."""
        return next((build for build in list_builds(self._paths) if build.record.name == self.name), None)

    def run(self) -> InstalledBuild:
        """Compile and put in place what is not there yet; another process's build is waited for.

        Raises NotFound if a tool is missing, DownloadFailed without sources, EngineFailed if something does not
        compile or run, Conflict if the disk is full. An interruption (KeyboardInterrupt) keeps what is done.
        """
        tools, cache = self._tools, self._paths.build_cache
        try:
            with _locked(cache, self._progress):
                if (there := self.find()) is not None:
                    return there
                file = fetch(
                    self._options.archive,
                    cache,
                    local=self._options.local,
                    offline=self._options.offline,
                    progress=self._progress,
                )
                built = self._build(tools, file)
                for older in list_builds(self._paths):
                    if older.record.device == built.record.device and older.record.name != built.record.name:
                        shutil.rmtree(older.folder, ignore_errors=True)
                shutil.rmtree(cache / self.name, ignore_errors=True)
                shutil.rmtree(self._source, ignore_errors=True)
                if file.parent == cache:
                    file.unlink()
                return built
        except OSError as error:
            room = f"{format_bytes(ROOM_BYTES)} are needed, {format_bytes(free_bytes(cache))} free"
            raise Conflict(
                f"cannot write into {error.filename or cache}",
                why=f"the disk is full: {room}" if is_full(error) else error.strerror or str(error),
                fix="Correct that and type the command again; it goes on where it stopped",
            ) from error

    @property
    def _source(self) -> Path:
        return self._paths.build_cache / f"source-{self._options.archive.sha256[:12]}"

    def _build(self, tools: Toolchain, archive: Path) -> InstalledBuild:
        if not self._source.is_dir():
            self._progress.note(f"unpacking {archive.name}")
            unpack(archive, self._options.archive.folder, self._source)
        work = self._paths.build_cache / self.name
        work.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        path = work / LOG_FILE
        with path.open("w", encoding="utf-8") as log:
            self._configure(tools, work, log)
            self._compile(tools, work, log)
            programs = {name: self._program(work, name) for name in self._options.archive.programs}
            self._try(programs, log)
        return self._publish(tools, programs, time.monotonic() - began)

    def _configure(self, tools: Toolchain, work: Path, log: IO[str]) -> None:
        self._progress.note(f"configuring for {self._options.device} ({processor_name()})")
        command = [tools.cmake, "-S", str(self._source), "-B", str(work)]
        if tools.ninja:
            command += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools.ninja}"]
        command += [f"-D{option}" for option in self._cmake_options]
        with self._failing(work, "llama.cpp could not be configured"):
            for _ in output_lines(command, log, self._environment()):
                pass

    def _compile(self, tools: Toolchain, work: Path, log: IO[str]) -> None:
        jobs = self._options.jobs or default_jobs()
        self._progress.note(f"compiling with {jobs} at a time; Ctrl-C stops, and the same command goes on from there")
        command = [tools.cmake, "--build", str(work), "--config", "Release", "--parallel", str(jobs)]
        command += ["--target", *self._options.archive.programs]
        with self._failing(work, "llama.cpp could not be compiled"):
            for line in output_lines(command, log, self._environment()):
                if (counted := _COUNTED.match(line)) is not None:
                    self._progress.compiled(int(counted[1]), int(counted[2] or 100))

    def _try(self, programs: Mapping[str, Path], log: IO[str]) -> None:
        for name, path in programs.items():
            # The processor may lack an instruction, or a library may not be found.
            with self._failing(path.parent, f"{name} was compiled but does not run"):
                for _ in output_lines([str(path), "--help"], log, os.environ):
                    pass

    @contextlib.contextmanager
    def _failing(self, work: Path, what: str) -> Iterator[None]:
        try:
            yield
        except CommandFailed as failed:
            log = self._paths.build_cache / self.name / LOG_FILE
            full = free_bytes(work) < JOB_BYTES // 100
            reason = "the disk is full" if full else first_error(log) or f"exit code {failed}"
            raise EngineFailed(what, why=reason, fix=f"All of the output is in {log}") from None

    def _environment(self) -> dict[str, str]:
        """Return an environment in which cmake and compilers are not looked up in the visited folder."""
        path = trusted_search_path()
        if self._tools.ninja:
            path.append(str(Path(self._tools.ninja).parent))
        # Git would be asked for the version, and would find a repository above the cache folder.
        own = {"PATH": os.pathsep.join(path), "GIT_CEILING_DIRECTORIES": str(self._paths.build_cache), "LC_ALL": "C"}
        return {**os.environ, **own, "NINJA_STATUS": "[%f/%t] "}

    def _program(self, work: Path, name: str) -> Path:
        for folder in (work / "bin", work / "bin" / "Release", work, work / "Release"):
            if (file := folder / _file_name(name)).is_file():
                return file
        raise EngineFailed(f"{name} was not made", why=f"it is not in {work}", fix=f"Look into {work / LOG_FILE}")

    def _publish(self, tools: Toolchain, programs: Mapping[str, Path], seconds: float) -> InstalledBuild:
        final = self._paths.builds / self.name
        with atomic_folder(final) as staged:
            for name, path in programs.items():
                shutil.copy2(path, staged / _file_name(name))
            record = BuildRecord(
                name=self.name,
                version=self._options.archive.version,
                device=self._options.device,
                source_sha256=self._options.archive.sha256,
                options=self._cmake_options,
                compiler=tools.compiler,
                cmake=tools.cmake_version,
                processor=processor_name(),
                seconds=seconds,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                sha256={name: file_sha256(staged / _file_name(name)) for name in programs},
            )
            write_atomic(
                staged / RECORD_FILE, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n", SHARED_MODE
            )
        return InstalledBuild(final, record)


def list_builds(paths: Paths) -> list[InstalledBuild]:
    """Return the builds in the data folder, the newest first; folders without a readable record are passed over."""
    builds = []
    for file in paths.builds.glob(f"*/{RECORD_FILE}"):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            build = InstalledBuild(file.parent, msgspec.json.decode(file.read_bytes(), type=BuildRecord))
            if build.server.is_file():
                builds.append(build)
    return sorted(builds, key=lambda build: build.record.created, reverse=True)


def remove_builds(paths: Paths) -> int:
    """Delete all builds and what is kept of unfinished ones; returns the bytes freed. Raises OSError."""
    freed = 0
    for folder in (paths.builds, paths.build_cache):
        freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        if folder.is_dir():
            shutil.rmtree(folder)
    return freed


def default_jobs() -> int:
    """Return how many compilers run at a time: one per core, fewer where memory is short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // JOB_BYTES))


def _file_name(program: str) -> str:
    return f"{program}.exe" if sys.platform == "win32" else program


@contextlib.contextmanager
def _locked(folder: Path, progress: DownloadProgress) -> Iterator[None]:
    from filelock import FileLock, Timeout  # noqa: PLC0415  (only builds need it)

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note("another process is compiling; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
