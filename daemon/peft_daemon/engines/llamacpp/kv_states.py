"""KV states on disk: what a llama.cpp server's slots held, found again by the tokens a prompt begins with.

A folder of pairs, ``NAME.kv`` as llama.cpp wrote it and ``NAME.json`` that says what it is of. A pair counts once its
second file is there. llama.cpp trusts what it is given and may die of a damaged file, so size and sha256 are compared
before. States are bounded in bytes and the least recently used go first. Several engines may share a folder: names are
random, files appear in one step, and one that another process deleted is forgotten. Speaks to no server.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peft_core.files import file_sha256, private_folder, write_atomic
from peft_daemon.engines.llamacpp.slots import shared_length

Weights = tuple[tuple[str, float], ...]
"""Digests and scales of the adapters that apply; empty for the base alone."""

WORTH_SAVING = 64
"""Tokens: fewer are read again in less than a second."""
LEFTOVER_S = 600.0
"""A file that never became part of a pair is deleted after this time."""
_DATA, _ABOUT, _UNFINISHED = ".kv", ".json", ".part"


class About(msgspec.Struct, frozen=True):
    """What one state is of."""

    fingerprint: str
    weights: Weights
    tokens: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Found:
    """A state, and how many tokens of a prompt, from the first on, it makes unnecessary to read."""

    name: str
    about: About
    shared: int


class KvStates:
    """The states of one folder that fit one base model, build and KV layout: those with its ``fingerprint``."""

    def __init__(self, folder: Path, *, fingerprint: str, limit_bytes: int) -> None:
        """Open the folder, making it private, and delete what is of no use in it.

        Raises Conflict when the folder is another user's, OSError when it cannot be used.
        """
        self.folder = private_folder(folder)
        self._fingerprint, self._limit_bytes = fingerprint, limit_bytes
        self._known: dict[str, About] = {}
        """The least recently used first."""
        self._clean()
        self._look()

    @property
    def bytes(self) -> int:
        """Size of all states known here."""
        return sum(about.bytes for about in self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def best(self, tokens: Sequence[int], weights: Weights) -> Found | None:
        """The state that holds most of ``tokens``, if any holds one."""
        wanted, shared, best = tuple(tokens), 0, ""
        for name, about in reversed(self._known.items()):
            if about.weights == weights and about.tokens[: shared + 1] == wanted[: shared + 1] and shared < len(wanted):
                shared, best = shared_length(about.tokens, wanted), name
        return Found(best, self._known[best], shared) if best else None

    def unsaved(self, tokens: Sequence[int], weights: Weights) -> int:
        """How many of ``tokens`` no state has."""
        found = self.best(tokens, weights)
        return len(tokens) - (found.shared if found else 0)

    @staticmethod
    def new_file() -> str:
        """A name for a state that is about to be written into the folder; ``add`` takes it, or ``drop``."""
        return secrets.token_hex(8) + _UNFINISHED

    def read(self, file: str, tokens: Sequence[int], weights: Weights) -> About:
        """What to note of a new file. Reads all of it; raises OSError."""
        path = self.folder / file
        return About(self._fingerprint, weights, tuple(tokens), path.stat().st_size, file_sha256(path))

    def add(self, file: str, about: About) -> None:
        """Keep a new file. States of which it has all that is worth keeping go, then the least recently used.

        Raises OSError.
        """
        self._look()
        if about.bytes > self._limit_bytes:
            self.drop(file)
            return
        for name, old in list(self._known.items()):
            covered = shared_length(old.tokens, about.tokens) > len(old.tokens) - WORTH_SAVING
            if old.weights == about.weights and covered:
                self.discard(name)
        while self._known and self.bytes + about.bytes > self._limit_bytes:
            self.discard(next(iter(self._known)))
        name = file.removesuffix(_UNFINISHED)
        (self.folder / file).replace(self._data(name))
        write_atomic(self._about(name), msgspec.json.encode(about))
        self._known[name] = about

    def drop(self, file: str) -> None:
        """Delete a new file that is not wanted after all."""
        with contextlib.suppress(OSError):
            (self.folder / file).unlink(missing_ok=True)

    def intact(self, found: Found) -> bool:
        """Whether the state is as it was saved. Reads all of it."""
        path = self._data(found.name)
        try:
            return path.stat().st_size == found.about.bytes and file_sha256(path) == found.about.sha256
        except OSError:
            return False

    def file(self, found: Found) -> str:
        """Name of the state's file in the folder."""
        return self._data(found.name).name

    def used(self, found: Found) -> None:
        """Note that the state was of use; also for those who open the folder later."""
        if about := self._known.pop(found.name, None):
            self._known[found.name] = about
            with contextlib.suppress(OSError):
                os.utime(self._about(found.name))

    def discard(self, name: str) -> None:
        """Delete a state."""
        self._known.pop(name, None)
        for path in (self._about(name), self._data(name)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all states."""
        self._look()
        for name in list(self._known):
            self.discard(name)

    def _look(self) -> None:
        """Learn what other engines added and deleted."""
        there = {path.name.removesuffix(_ABOUT): path for path in self.folder.glob(f"*{_ABOUT}")}
        for name in self._known.keys() - there.keys():
            del self._known[name]
        for name in sorted(there.keys() - self._known.keys(), key=lambda name: _changed(there[name])):
            if about := self._usable(name):
                self._known[name] = about

    def _clean(self) -> None:
        """Delete what was left behind, is damaged, or was made by another base, build or layout."""
        for path in self.folder.iterdir():
            name, old = path.stem, _changed(path) < time.time() - LEFTOVER_S
            unpaired = path.suffix == _UNFINISHED or not self._about(name).exists()
            if (path.suffix == _ABOUT and self._usable(name) is None) or (unpaired and old):
                self.discard(name)
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _usable(self, name: str) -> About | None:
        try:
            about = msgspec.json.decode(self._about(name).read_bytes(), type=About)
            size = self._data(name).stat().st_size
        except (OSError, ValueError, RecursionError):
            return None
        return about if about.fingerprint == self._fingerprint and about.bytes == size else None

    def _data(self, name: str) -> Path:
        return self.folder / (name + _DATA)

    def _about(self, name: str) -> Path:
        return self.folder / (name + _ABOUT)

    def __iter__(self) -> Iterator[About]:
        return iter(self._known.values())


def fingerprint(*parts: object) -> str:
    """One word that differs when any of ``parts`` does."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
