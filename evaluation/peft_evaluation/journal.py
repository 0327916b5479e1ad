"""The files that make a run resumable: ``run.json``, which describes the run, and journals of its results.

A journal has one JSON line per result, written as soon as it is there. An incomplete last line (after ``kill -9``) is
cut off, and that result is computed again. Only one process at a time may append.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import msgspec
from filelock import FileLock, Timeout

from peft_core import files
from peft_core.errors import Conflict, NoSpace, is_full

T = TypeVar("T")


class Journal(Generic[T]):
    """A file with one value of type ``kind`` per line. Use it in a ``with`` block to append.

    Entering the block raises Conflict while another process appends.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._file: int | None = None
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)

    def read(self) -> Iterator[T]:
        """Yield the values of all complete lines in order; raises Conflict for a line that cannot be read."""
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, 1):
            try:
                yield self._decoder.decode(line)
            except (ValueError, RecursionError) as error:
                raise Conflict(
                    f"{self._path}, line {number} cannot be read",
                    why=str(error),
                    fix="Remove that line; its result is computed again",
                ) from None

    def __enter__(self) -> Journal[T]:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Conflict(
                f"another process is working in {self._path.parent}",
                fix="Wait until it is done, or start another evaluation or study under another name",
            ) from None
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        content = self._path.read_bytes()
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
        os.lseek(self._file, 0, os.SEEK_END)
        return self

    def append(self, value: T) -> None:
        """Write one line, which survives the end of this process, or none of it.

        Raises ValueError outside the block, NoSpace when the disk takes no more.
        """
        if self._file is None:
            raise ValueError("the journal is not open")
        try:
            files.append_line(self._file, msgspec.json.encode(value))
        except OSError as error:
            if not is_full(error):
                raise
            raise NoSpace(
                f"the disk is full: no result could be added to {self._path}",
                why="those in it are whole and stay",
                fix="Free some space, then continue as after any interruption",
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()


IDENTITY_FILE = "run.json"


class StrategyIdentity(msgspec.Struct, frozen=True):
    """The seeds and settings of a strategy when it was first requested."""

    seeds: tuple[int, ...]
    settings: dict[str, str]


class EvaluationIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``run.json``: everything that has to be the same to resume the evaluation."""

    command: str
    """The command that started it; not compared."""
    data: str
    part: str
    data_digest: str
    model: str
    model_sha256: str
    engine: str
    precision: str = ""
    """Of the weights in the torch engine; empty for another engine, and in records of earlier versions."""
    formats: str
    decoding: dict[str, str]
    max_tokens: int
    context_tokens: int
    prompt_tokens: int = 0
    """Longest prompt for a hole; 0 in runs of earlier versions, where the context was its limit."""
    strategies: dict[str, StrategyIdentity]


def begin_run(folder: Path, wanted: EvaluationIdentity, *, resume: bool) -> EvaluationIdentity:
    """Write ``run.json`` of a new run, or check that the run in ``folder`` is the same; strategies may be added to it.

    Returns the identity with all strategies so far. Raises Conflict if there is a run and ``resume`` is not set, or if
    it differs; the message names the differences.
    """
    path = folder / IDENTITY_FILE
    require_free(folder, resume=resume)
    before = read_identity(folder) if path.exists() else None
    if before is not None:
        _require_same(before, wanted, folder)
        merged = {**before.strategies, **wanted.strategies}
        wanted = msgspec.structs.replace(wanted, command=before.command, strategies=merged)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(wanted), indent=2))
    return wanted


def require_free(folder: Path, *, resume: bool) -> None:
    """Raise Conflict if ``folder`` holds a run and ``resume`` is not set."""
    if not resume and (folder / IDENTITY_FILE).exists():
        raise Conflict(
            f"{folder} holds an evaluation already",
            fix="Give the same command with `--resume`, another `--name`, or delete that folder",
        )


def read_identity(folder: Path) -> EvaluationIdentity:
    """Return the identity of the run in ``folder``; raises Conflict if it cannot be read."""
    path = folder / IDENTITY_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=EvaluationIdentity)
    except (OSError, ValueError, RecursionError) as error:
        raise Conflict(f"cannot read {path}", why=str(error), fix="Start again with another `--name`") from None


def _require_same(before: EvaluationIdentity, wanted: EvaluationIdentity, folder: Path) -> None:
    differing = [
        f"{name} was {getattr(before, name)!r} and is {getattr(wanted, name)!r}"
        for name in EvaluationIdentity.__struct_fields__
        if name not in ("command", "strategies")
        and getattr(before, name) != getattr(wanted, name)
        and (name != "precision" or before.precision)
    ]
    differing += [
        f"{name} was {before.strategies[name]} and is {strategy}"
        for name, strategy in wanted.strategies.items()
        if name in before.strategies and before.strategies[name] != strategy
    ]
    if differing:
        raise Conflict(
            f"the evaluation in {folder} was started with other options",
            why="; ".join(differing),
            fix="Use the same options, or start another with `--name`",
        )
