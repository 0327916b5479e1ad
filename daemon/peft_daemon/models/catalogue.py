"""The base models that can be chosen: identity, size, hash, prompt formats and sources.

Those of the package are in ``catalogue.toml``; those that a user added are in a file of the home. Only facts about
models are here. Fetching is in ``sources``, what is on disk in ``store``, what a prompt format means in ``completion``.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from peft_core.api_types import Task
from peft_core.errors import Conflict, InvalidInput, NotFound, UnusablePath
from peft_core.files import format_bytes, private_folder, write_private
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP, TORCH

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Meta(ge=1)]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A plain name: joined to a folder it stays in that folder."""
PROCESS_BYTES = 280_000_000
"""Of the daemon and its engine, without weights: measured 330 MB with the default model, of which KV caches are 50."""
TORCH_PROCESS_BYTES = 700_000_000
"""The same with the torch engine: measured 3.2 GB with weights of 2.5."""
STORED_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, by the name that safetensors gives its type."""


class PromptFormats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids of the prompt formats a model was trained with, one per task."""

    fill: str
    intent: str
    edit: str = ""
    """Of next edits; empty: the model was not made for them."""
    own: dict[str, Any] = {}
    """By id: formats that only this model has, as ``completion.formats`` writes them."""


class HubLocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hub", tag_field="type"):
    """One file of a model hub repository at a pinned revision (a commit, never a branch)."""

    repository: Annotated[str, Meta(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$")]
    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
    """Path in the repository."""


class WheelPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A slice of the model, stored as one member of one wheel."""

    package: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Meta(pattern=r"^[0-9][0-9a-z.]*$")]
    member: Annotated[str, Meta(pattern=r"^[\w.-]+(/[\w.-]+)*$")]
    """Path inside the wheel."""
    bytes: Bytes | None = None
    sha256: Sha256 | None = None
    """Hash of this slice, if known. The hash of the whole file is checked in any case."""


class PackageLocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="package-index", tag_field="type"):
    """Wheels on the package index whose members, concatenated in this order, are the model file."""

    parts: Annotated[tuple[WheelPart, ...], Meta(min_length=1)]


class FileLocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="file", tag_field="type"):
    """A file on this disk, which is used where it lies."""

    path: str
    """Absolute."""


class TokenCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model does for each token, as far as its speed depends on it; of a mixture of experts, for those asked."""

    weights: Annotated[int, Meta(ge=1)]
    """Weights of its layers that a token is multiplied with, without embeddings and output."""
    bytes: Bytes
    """Bytes of weights that are read from memory to write a token: those of the layers, and the output's."""
    quantization: str
    """Of the layers, as ``engines.machine`` names it: llama.cpp computes some types faster than others."""


class FolderLocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="folder", tag_field="type"):
    """A folder in transformers' layout on this disk, which is used where it lies."""

    path: str
    """Absolute."""
    side_sha256: Sha256
    """Hash of the files beside the weights (config, tokenizer, chat template): ``content.ContentHash.side_sha256``."""


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One base model."""

    id: FileName
    family: str
    """Architecture, as GGUF or ``config.json`` names it; adapters fit models of one family and size only."""
    licence: str
    """SPDX id, or what the file says of itself; ``unknown`` if it says nothing."""
    file: FileName
    """Name of the file or folder."""
    bytes: Bytes
    """Size of all content."""
    sha256: Sha256
    """Hash of the weights: see ``content``."""
    quantization: str
    context_tokens: Annotated[int, Meta(ge=1)]
    """Longest context the model was trained for."""
    prompt_formats: PromptFormats
    fill_score: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Published share of holes that it fills exactly; see ``fill_score_source``."""
    fill_score_source: str = ""
    parameters: Annotated[int, Meta(ge=1)] | None = None
    """All weights there are, as the makers count them."""
    token_cost: TokenCost | None = None
    sources: Annotated[tuple[HubLocation | PackageLocation | FileLocation | FolderLocation, ...], Meta(min_length=1)]
    """In the order they are tried."""

    @property
    def folder(self) -> FolderLocation | None:
        """The folder of a model in transformers' layout; None for one in a GGUF file."""
        return next((source for source in self.sources if isinstance(source, FolderLocation)), None)

    @property
    def hub_name(self) -> str:
        """The hub's name of the model that this one is a quantization of; empty if it is not known.

        Publishers give the repository of their GGUF files the model's own name with an ending.
        """
        names = (each.repository for each in self.sources if isinstance(each, HubLocation))
        return next((name[:-5] for name in names if name.upper().endswith("-GGUF")), "")

    @property
    def engines(self) -> tuple[str, ...]:
        """Ids of the engines that can run it, the one to prefer first."""
        return (LLAMACPP, TORCH) if self.folder is None else (TORCH,)

    @property
    def memory_bytes(self) -> int:
        """Memory that serving it takes, roughly: the weights, the KV caches of two slots, and both processes.

        Of a folder the weights as float32, in which a processor computes with them.
        """
        if self.folder is None:
            return int(self.bytes * 1.1) + PROCESS_BYTES
        return int(self.bytes * 4 / STORED_BYTES.get(self.quantization, 4) * 1.1) + TORCH_PROCESS_BYTES

    @property
    def in_place(self) -> Path | None:
        """The file or folder of a model that is used where it lies, or None."""
        lying = (Path(each.path) for each in self.sources if isinstance(each, FileLocation | FolderLocation))
        return next(lying, None)


class _Entries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[ModelEntry, ...] = ()


@cache
def entries() -> tuple[ModelEntry, ...]:
    """Return the models of the package, in the catalogue's order; the first is the default."""
    text = resources.files("peft_daemon.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Entries).models


def get(model_id: str) -> ModelEntry:
    """Return the model of the package with this id; raises NotFound naming the closest ids."""
    return _find(model_id, entries())


def _find(model_id: str, among: tuple[ModelEntry, ...]) -> ModelEntry:
    for entry in among:
        if entry.id == model_id:
            return entry
    from difflib import get_close_matches  # noqa: PLC0415  (only on the way to an error)

    close = get_close_matches(model_id.lower(), [entry.id for entry in among], n=3, cutoff=0.5)
    raise NotFound(
        f"no model '{model_id}' in the catalogue",
        why=f"did you mean {' or '.join(close)}" if close else "",
        fix="Type `peft-daemon models list` for all ids",
    )


def memory_shortage(entries: Sequence[ModelEntry], available: int) -> str:
    """Return what to say where these models together need more than ``available`` bytes of memory; empty if not."""
    needed = sum(entry.memory_bytes for entry in entries)
    if needed <= available:
        return ""
    ids = " and ".join(entry.id for entry in entries)
    return (
        f"{ids} take about {format_bytes(needed)} of memory, and {format_bytes(available)} are free: one "
        "makes room for the other, which takes seconds each time. Close other programs, or choose a smaller `model` "
        "or `intent_model`"
    )


class Catalogue:
    """The models of the package, and those that the user added, which are kept in ``file``."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def entries(self) -> tuple[ModelEntry, ...]:
        """Return all models, the user's last; raises InvalidInput if the user's file is damaged."""
        return entries() + self.user_entries()

    def user_entries(self) -> tuple[ModelEntry, ...]:
        """Return the models that the user added, the newest last; raises InvalidInput if the file is damaged."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Entries).models
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInput(
                f"the list of added models {self._file} cannot be read",
                why=str(error),
                fix="Correct it, or delete it and add the models again with `peft-daemon models add`",
            ) from None

    def get(self, model_id: str) -> ModelEntry:
        """Return the model with this id; raises NotFound naming the closest ids."""
        # The package's first: nobody needs the user's file for them.
        for entry in entries():
            if entry.id == model_id:
                return entry
        return _find(model_id, self.entries())

    def by_task(self, settings: Settings) -> dict[Task, ModelEntry]:
        """Return the model that answers each task; raises NotFound naming the closest ids."""
        fill = self.get(settings.model)
        intent = self.get(settings.intent_model) if settings.intent_model else fill
        edit = self.get(settings.edit_model) if settings.edit_model else fill
        return {Task.FILL: fill, Task.INTENT: intent, Task.EDIT: edit}

    def require_new(self, model_id: str, sha256: str) -> None:
        """Raise Conflict if a model with this id, or with this file, is in the catalogue."""
        for other in self.entries():
            if other.sha256 == sha256:
                raise Conflict(
                    f"this file is the model '{other.id}'",
                    why="it has the same sha256",
                    fix=f"Use that: `PEFT_DAEMON_MODEL={other.id} peft-daemon start`",
                )
            if other.id == model_id:
                raise Conflict(f"there is a model '{model_id}'", fix="Choose another name with `--name`")

    def add(self, entry: ModelEntry) -> None:
        """Add a model of the user's.

        Raises Conflict if its id or its file is in the catalogue, UnusablePath if the user's file cannot be written.
        """
        with self._locked():
            self.require_new(entry.id, entry.sha256)
            self._write((*self.user_entries(), entry))

    def remove(self, model_id: str) -> bool:
        """Take a model of the user's out of the catalogue; False if it is not one. Raises UnusablePath."""
        with self._locked():
            mine = self.user_entries()
            others = tuple(entry for entry in mine if entry.id != model_id)
            if len(others) == len(mine):
                return False
            self._write(others)
            return True

    def _write(self, added: tuple[ModelEntry, ...]) -> None:
        write_private(self._file, msgspec.json.format(msgspec.json.encode(_Entries(added)), indent=2) + b"\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file's lock: two commands at once must not lose one's model. Raises UnusablePath."""
        from filelock import FileLock  # noqa: PLC0415  (readers need no lock)

        try:
            private_folder(self._file.parent)
            lock = FileLock(self._file.with_suffix(".lock"))
            lock.acquire()
        except OSError as error:
            raise UnusablePath(error, self._file) from None
        try:
            yield
        finally:
            lock.release()


def open_catalogue(paths: Paths) -> Catalogue:
    """Return the catalogue of an installation."""
    return Catalogue(paths.user_catalogue)
