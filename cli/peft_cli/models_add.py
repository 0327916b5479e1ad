"""``peft-daemon models add`` and ``found``: models of the user's own.

They come from a file, a folder in transformers' layout, the hub or another program.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import psutil
import typer

from peft_cli.models import app, pull_with_progress, resolve_settings
from peft_cli.output import Json, emit, run
from peft_core.api_types import Task
from peft_core.errors import DownloadFailed, InvalidInput, PeftDaemonError
from peft_core.files import format_bytes
from peft_core.gguf import Vocabulary, read_vocabulary
from peft_core.http_download import hub_endpoint
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import TORCH
from peft_daemon.completion import detection, formats
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.engines import factory
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.temporary import temporary_engine
from peft_daemon.engines.torch import families
from peft_daemon.engines.torch.engine import require_installed
from peft_daemon.models.catalogue import (
    Catalogue,
    FileLocation,
    FolderLocation,
    HubLocation,
    ModelEntry,
    PromptFormats,
    open_catalogue,
)
from peft_daemon.models.content import ContentHash, hash_content
from peft_daemon.models.facts import ModelFacts, model_id, read_facts, require_memory
from peft_daemon.models.hub import find_hub_file
from peft_daemon.models.hub_folder import CONFIG, read_folder_facts, read_folder_vocabulary, read_hub_folder
from peft_daemon.models.local_stores import LocalStores
from peft_daemon.models.store import ModelStore, open_store

HUB, OLLAMA = "hf:", "ollama:"
TRIED_CONTEXT_TOKENS = 256
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class AddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What ``models add --json`` prints."""

    id: str
    path: str
    bytes: int
    sha256: str
    family: str
    quantization: str
    licence: str
    context_tokens: int
    fill_format: str
    intent_format: str
    source: str


class FoundRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model as ``models found --json`` prints it."""

    program: str
    name: str
    path: str
    bytes: int
    model: str | None
    """Its id, if it was added."""


@dataclass(frozen=True)
class Corrections:
    """What the user knows better than the file; None: as the file says."""

    name: str | None
    licence: str | None
    context_tokens: int | None
    fill_format: str | None
    intent_format: str | None


@app.command("add", epilog="Example: peft-daemon models add ~/models/granite-4.0-1b-base-Q8_0.gguf")
def add_model(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="PATH.gguf, FOLDER, hf:OWNER/REPO[/FILE][@REVISION] or ollama:NAME[:TAG]."
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", metavar="ID", help="Its id; default: made of its name.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="SPDX id, if the file does not say.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option("--context", min=256, help="Longest context, if the file is wrong.")
    ] = None,
    fill_format: Annotated[
        str | None, typer.Option("--fill-format", metavar="ID", help="How holes are written, if it is not recognised.")
    ] = None,
    intent_format: Annotated[
        str | None, typer.Option("--intent-format", metavar="ID", help="How sentences are written.")
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Load it once, to see whether it works.")] = True,
    as_json: Json = False,
) -> None:
    """Add a model that is not in the catalogue.

    A file on this disk is used where it lies, and so is a folder in transformers' layout (config.json, safetensors,
    tokenizer.json), which the torch engine runs; a file of the hub is pinned and fetched. Family, quantization,
    context and prompt formats are read from the files.
    """
    paths = Paths.from_environment()
    settings = resolve_settings()
    corrections = Corrections(name, licence, context_tokens, fill_format, intent_format)
    store, catalogue = open_store(settings, paths), open_catalogue(paths)
    hashed: ContentHash | None = None
    if source.startswith(HUB):
        entry = _from_hub(source.removeprefix(HUB), catalogue, store, settings, corrections)
    elif source.startswith(OLLAMA):
        wanted = source.removeprefix(OLLAMA)
        entry, hashed = _from_file(LocalStores(Path.home(), os.environ).ollama_file(wanted), wanted, corrections)
    else:
        path = Path(source).expanduser()
        entry, hashed = _from_folder(path, corrections) if path.is_dir() else _from_file(path, "", corrections)
    if check:
        catalogue.require_new(entry.id, entry.sha256)  # before it is loaded, which takes a while
        run(_try(settings, entry, store.file(entry)))
    catalogue.add(entry)
    try:
        store.pull(entry) if hashed is None else store.register(entry, hashed)
    except BaseException:
        catalogue.remove(entry.id)
        raise
    added = AddedModel(
        id=entry.id,
        path=str(store.path(entry)),
        bytes=entry.bytes,
        sha256=entry.sha256,
        family=entry.family,
        quantization=entry.quantization,
        licence=entry.licence,
        context_tokens=entry.context_tokens,
        fill_format=entry.prompt_formats.fill,
        intent_format=entry.prompt_formats.intent,
        source=source,
    )
    emit(added, as_json=as_json, text=lambda: _print_added(added))


@app.command("found", epilog="Example: peft-daemon models found --json")
def found_models(as_json: Json = False) -> None:
    """Show the models that Ollama, LM Studio, llama.cpp and the hub's cache have on this disk."""
    added = {entry.in_place: entry.id for entry in open_catalogue(Paths.from_environment()).user_entries()}
    rows = [
        FoundRow(
            program=each.program,
            name=each.name,
            path=str(each.path),
            bytes=each.bytes,
            model=added.get(each.path),
        )
        for each in LocalStores(Path.home(), os.environ).models()
        if not each.family or families.is_known(each.family)
    ]
    emit(rows, as_json=as_json, text=lambda: _print_found(rows))


def _from_file(file: Path, label: str, corrections: Corrections) -> tuple[ModelEntry, ContentHash]:
    if file.suffix == ".safetensors" or file.name == CONFIG:
        raise InvalidInput(
            f"{file} is a part of a model", fix=f"Add its folder: `peft-daemon models add {file.parent}`"
        )
    facts = read_facts(file)
    require_memory(facts.bytes, psutil.virtual_memory().total)
    formats = _formats(read_vocabulary(file), detection.fill_format_of, corrections)
    hashed = _hashed(file, facts)
    location = FileLocation(str(file.absolute()))
    return _entry(facts, label or file.stem, hashed.sha256, formats, location, corrections), hashed


def _from_folder(path: Path, corrections: Corrections) -> tuple[ModelEntry, ContentHash]:
    folder = read_hub_folder(path)
    families.family_of(folder.family)
    facts = read_folder_facts(folder, context_tokens=corrections.context_tokens)
    require_memory(facts.bytes, psutil.virtual_memory().total)
    fill_format_of = partial(detection.fill_or_continue_format_of, architecture=folder.family)
    formats = _formats(read_folder_vocabulary(path), fill_format_of, corrections)
    hashed = _hashed(path, facts)
    location = FolderLocation(str(path.absolute()), hashed.side_sha256)
    return _entry(facts, facts.name, hashed.sha256, formats, location, corrections), hashed


def _hashed(path: Path, facts: ModelFacts) -> ContentHash:
    typer.echo(f"hashing {path} ({format_bytes(facts.bytes)})", err=True)
    try:
        return hash_content(path)
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or path} cannot be read", why=error.strerror or str(error), fix="Check its permissions"
        ) from None


def _from_hub(
    address: str, catalogue: Catalogue, store: ModelStore, settings: Settings, corrections: Corrections
) -> ModelEntry:
    """Pin the file, fetch it, and read it; what was fetched stays if it cannot be used, for another try."""
    if settings.offline:
        raise DownloadFailed(
            "the network is off", why="`offline` is set", fix="Set PEFT_DAEMON_OFFLINE=0 once, or add a file"
        )
    found = find_hub_file(address, hub_endpoint(os.environ))
    require_memory(found.bytes, psutil.virtual_memory().total)
    name = Path(found.location.file)
    pinned = ModelEntry(
        id=corrections.name or model_id(name.stem),
        family="",
        licence=found.licence,
        file=name.name,
        bytes=found.bytes,
        sha256=found.sha256,
        quantization="",
        context_tokens=1,
        prompt_formats=PromptFormats(fill="", intent=""),
        sources=(found.location,),
    )
    catalogue.require_new(pinned.id, pinned.sha256)  # before anything is fetched
    file = pull_with_progress(store, pinned).path
    facts = read_facts(file)
    named = Corrections(
        pinned.id,
        corrections.licence or found.licence,
        corrections.context_tokens,
        corrections.fill_format,
        corrections.intent_format,
    )
    formats = _formats(read_vocabulary(file), detection.fill_format_of, corrections)
    return _entry(facts, name.stem, found.sha256, formats, found.location, named)


def _entry(
    facts: ModelFacts,
    label: str,
    sha256: str,
    formats: PromptFormats,
    location: FileLocation | FolderLocation | HubLocation,
    corrections: Corrections,
) -> ModelEntry:
    chosen = corrections.name or model_id(label)
    if corrections.name and model_id(chosen) != chosen:
        raise InvalidInput(f"'{chosen}' cannot be a model's id", fix=f"Write `--name {model_id(chosen)}`")
    file = Path(location.file if isinstance(location, HubLocation) else location.path).name
    suffix = "" if isinstance(location, FolderLocation) else ".gguf"
    return ModelEntry(
        id=chosen,
        family=facts.family,
        licence=corrections.licence or facts.licence,
        file=file if _FILE_NAME.fullmatch(file) else f"{chosen}{suffix}",
        bytes=facts.bytes,
        sha256=sha256,
        quantization=facts.quantization,
        context_tokens=corrections.context_tokens or facts.context_tokens,
        prompt_formats=formats,
        sources=(location,),
    )


def _formats(
    vocabulary: Vocabulary, fill_format_of: Callable[[Vocabulary], PromptFormat], corrections: Corrections
) -> PromptFormats:
    """Return the ids of the prompt formats that the user names, else of those that the vocabulary shows."""
    named = corrections.fill_format, corrections.intent_format
    fill = formats.get(named[0]) if named[0] else fill_format_of(vocabulary)
    intent = formats.get(named[1]) if named[1] else detection.instruct_format_of(vocabulary)
    for chosen, task in ((fill, Task.FILL), (intent, Task.INTENT)):
        if chosen.task is not task:
            raise InvalidInput(
                f"prompt format '{chosen.id}' is not for this", fix="docs/models.md says what each is for"
            )
    own = {} if intent.id in formats.FORMATS else formats.store(intent)
    return PromptFormats(fill=fill.id, intent=intent.id, own=own)


async def _try(settings: Settings, entry: ModelEntry, file: Path) -> None:
    """Load the model once and write a token; raises InvalidInput where the engine cannot."""
    if factory.engine_id(settings, entry) == TORCH:
        require_installed()
    try:
        async with temporary_engine(settings, entry, file, context_tokens=TRIED_CONTEXT_TOKENS) as engine:
            async for _ in engine.generate(GenerationRequest((Segment("x = "),), max_tokens=1)):
                pass
    except PeftDaemonError as error:
        raise InvalidInput(
            f"the engine cannot use {file}",
            why=f"{error.what}: {error.why}" if error.why else error.what,
            fix=f"Try another {'copy' if entry.folder else 'file'} of this model; `--no-check` adds it all the same",
        ) from None


_LEFT_TO_RIGHT_MEANS = "it has no tokens for filling in, so what stands after the cursor is not shown to it"


def _print_added(added: AddedModel) -> None:
    fills = added.fill_format != formats.LEFT_TO_RIGHT.id
    rows = (
        ("folder" if Path(added.path).is_dir() else "file", f"{added.path} ({format_bytes(added.bytes)})"),
        ("sha256", added.sha256),
        ("family", f"{added.family}, {added.quantization}"),
        ("context", f"{added.context_tokens} tokens"),
        ("licence", added.licence),
        ("holes", added.fill_format if fills else f"{added.fill_format}: {_LEFT_TO_RIGHT_MEANS}"),
        ("sentences", added.intent_format),
    )
    typer.echo(f"added {added.id}")
    for label, value in rows:
        typer.echo(f"  {label:<10} {value}")
    typer.echo(f"Use it: `peft-daemon setup --model {added.id}`, or PEFT_DAEMON_MODEL={added.id} for one command")


def _print_found(rows: list[FoundRow]) -> None:
    if not rows:
        typer.echo("Ollama, LM Studio, llama.cpp and the hub's cache have no model on this disk")
        return
    for row in rows:
        state = f"added as {row.model}" if row.model else f"peft-daemon models add {shlex.quote(row.path)}"
        typer.echo(f"{row.program:<10} {format_bytes(row.bytes):>8}  {row.name}\n{'':<20} {state}")
