"""What is known about an adapter: what it was trained on, how, and what it may be served with.

``TrainingRecord`` is what a tuner writes into the PEFT folder (``peft-daemon.json``). ``Manifest`` is what the
registry keeps beside the adapter (``manifest.json``). The rules for adapter names are here too; ``validation`` checks
adapters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core.api_types import BASE, AdapterSummary, Task
from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.models.catalogue import ModelEntry

RecordText = Annotated[str, Meta(max_length=4096)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
OptionalDigest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")]

UNKNOWN = "unknown"
CARD_FILE = "README.md"
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
SHORT_DIGEST_LENGTH = 12
"""Digits of a digest that are shown. They stand for the name of an adapter that no name points at."""
MAX_NAME_LENGTH = 64
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How an adapter was trained: what a tuner knows and the weights do not show."""

    base: RecordText = ""
    """Catalogue id of the model it was trained on."""
    base_sha256: OptionalDigest = ""
    """sha256 of that model's file. The adapter is served on no other file."""
    quantization: RecordText = UNKNOWN
    """Form of the weights during training, e.g. ``Q4_K_M, de-quantized`` or ``NF4``."""
    prompt_format: RecordText = UNKNOWN
    """Id of the prompt format it was trained on."""
    tasks: Annotated[tuple[Task, ...], Meta(max_length=len(Task))] = ()
    method: RecordText = ""
    data_digest: RecordText = ""
    seed: int | None = None
    versions: Annotated[dict[RecordText, RecordText], Meta(max_length=64)] = {}
    """Versions of the libraries it was trained with."""
    metrics: Annotated[dict[RecordText, float], Meta(max_length=256)] = {}
    scale: Annotated[float, Meta(ge=0, le=2)] = 1.0
    """The scale for requests that give none."""
    licence: RecordText = UNKNOWN
    created: RecordText = ""
    """ISO 8601, UTC."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One stored adapter."""

    digest: Digest
    """Content digest; see ``lora.lora_digest`` and ``peft_files.tensors_digest``."""
    name: str
    """The name by which it was looked up; in the stored file, the name of its first import."""
    base: str
    base_sha256: Digest
    base_family: str
    """Architecture, as GGUF names it."""
    quantization: str
    prompt_format: str
    tasks: tuple[Task, ...]
    method: str
    rank: int
    """The largest rank of its modules; 0 for a method without ranks."""
    alpha: float
    targets: tuple[str, ...]
    """Kinds of modules it changes: ``q_proj``, ``down_proj``, …"""
    modules: int
    """How many modules it changes."""
    parameters: int
    data_digest: str
    seed: int | None
    versions: dict[str, str]
    metrics: dict[str, float]
    licence: str
    created: str
    source: str
    """Folder it was imported from."""
    peft_bytes: int
    gguf_bytes: int
    """0 when it has no GGUF form."""
    virtual_tokens: int = 0
    """Number of virtual tokens that prompt and prefix tuning put in front of the prompt."""
    engines: tuple[str, ...] = (LLAMACPP, TORCH)
    """Ids of the engines that can serve it. Older manifests, without this field, are of LoRAs with a GGUF form."""
    scales: bool | None = None
    """Whether scales between 0 and 1 are possible; None in older manifests."""

    scale: float = 1.0
    """The scale for requests that give none."""
    files: dict[str, str] = {}
    """sha256 of each stored file, by its path in the adapter's folder; empty in older manifests."""

    @property
    def scalable(self) -> bool:
        """Whether a scale other than 0 and 1 is possible; DoRA, prompt and prefix adapters are on or off."""
        if self.scales is not None:
            return self.scales
        return LLAMACPP in self.engines or self.method == "ia3"

    def summary(self, active_for: list[str]) -> AdapterSummary:
        """Return its entry for lists of adapters."""
        return AdapterSummary(
            name=self.name,
            digest=self.digest,
            base=self.base,
            base_family=self.base_family,
            method=self.method,
            rank=self.rank,
            task=", ".join(self.tasks),
            size_bytes=self.gguf_bytes or self.peft_bytes,
            created=self.created,
            active_for=active_for,
        )

    def require_engine(self, engine: str) -> None:
        """Raise InvalidInput unless this engine can serve the adapter."""
        if engine not in self.engines:
            able = self.engines[0]
            raise InvalidInput(
                f"adapter '{self.name}' ({self.method}) cannot be served by the {engine} engine",
                why=f"it can be by {' and '.join(self.engines)}",
                fix=f"Set `engine` to {able}: `PEFT_DAEMON_ENGINE={able} peft-daemon start`, or in the file that "
                "`peft-daemon config --path` shows",
            )

    def require_base(self, base: str, base_sha256: str) -> None:
        """Raise Conflict unless the adapter was made for exactly this model file."""
        if base_sha256 != self.base_sha256:
            raise Conflict(
                f"adapter '{self.name}' was made for {self.base} ({self.base_sha256[:12]}), not for {base} "
                f"({base_sha256[:12]})",
                fix=f"Serve {self.base}, or choose another adapter with `peft-daemon adapters list`",
            )


def usable_tasks(manifest: Manifest, task: Task | None, models: Mapping[Task, ModelEntry]) -> tuple[Task, ...]:
    """Return the tasks that an adapter can serve: those it was trained for, or ``task``, with a model it was made for.

    ``models`` has the model that answers each task. Raises Conflict where none of these is the adapter's base, and for
    next edits by an adapter for completions, or the other way round: neither knows how the other is asked.
    """
    if task is not None and (task is Task.EDIT) is not (Task.EDIT in manifest.tasks):
        raise Conflict(
            f"{manifest.name} cannot serve the task '{task}'",
            why=f"it was made for: {', '.join(manifest.tasks)}",
            fix="Choose another adapter with `peft-daemon adapters list`",
        )
    wanted = manifest.tasks if task is None else (task,)
    usable = tuple(each for each in wanted if models[each].sha256 == manifest.base_sha256)
    if not usable:
        model = models[wanted[0]] if wanted else models[Task.FILL]
        manifest.require_base(model.id, model.sha256)
    return usable


def lost_summary(name: str, digest: str, active_for: list[str], damaged: str) -> AdapterSummary:
    """Return the list entry of an adapter that cannot be used, without anything from its files."""
    return AdapterSummary(
        name=name,
        digest=digest,
        base="unknown",
        base_family="",
        method="",
        rank=0,
        task="",
        size_bytes=0,
        created="",
        active_for=active_for,
        damaged=damaged,
    )


@dataclass(frozen=True)
class AdapterLease:
    """One adapter for one request: its content digest, its file, and its scale."""

    digest: str
    path: Path
    """What the engine loads: a GGUF file for llama.cpp, a PEFT folder for torch."""
    scale: float = 1.0
    name: str = field(default="", compare=False)
    """Its name in the registry; the digest alone decides what it is."""

    def require_present(self) -> None:
        """Raise NotFound if the adapter was removed after the request had chosen it."""
        if not self.path.exists():
            raise removed_adapter_error(self.name, self.digest)


def removed_adapter_error(name: str, digest: str) -> NotFound:
    """Return the error for an adapter that was removed while a request or a command was using it."""
    named = f"'{name}' ({digest[:SHORT_DIGEST_LENGTH]})" if name else digest[:SHORT_DIGEST_LENGTH]
    return NotFound(
        f"adapter {named} was removed meanwhile",
        fix="Import it again, or choose another with `peft-daemon adapters use`",
    )


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the model card of an exported PEFT folder, from which the hub and people learn base and licence."""
    try:
        config = msgspec.json.decode((folder / "adapter_config.json").read_bytes(), type=dict[str, object])
    except (OSError, ValueError, RecursionError):
        config = {}
    base = str(config.get("base_model_name_or_path") or manifest.base)
    figures = {
        "base": f"{manifest.base} ({manifest.base_sha256[:SHORT_DIGEST_LENGTH]}), {manifest.quantization}",
        "method": f"{manifest.method}, {manifest.parameters:,} parameters",
        "tasks": ", ".join(manifest.tasks),
        "prompt format": manifest.prompt_format,
        "scale": f"{manifest.scale:g}",
        "licence": manifest.licence,
        "data digest": manifest.data_digest or "not recorded",
        "digest": manifest.digest,
        "created": manifest.created,
        **{name: f"{value:g}" for name, value in sorted(manifest.metrics.items())},
    }
    front = {"base_model": base, "library_name": "peft", "license": manifest.licence}
    head = "\n".join(f"{key}: {msgspec.json.encode(value).decode()}" for key, value in front.items())
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    text = f"---\n{head}\n---\n\n# {manifest.name}\n\n| | |\n|---|---|\n{rows}\n"
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def require_usable_name(name: str) -> None:
    """Raise InvalidInput unless ``name`` may be an adapter's name.

    A name is safe in a path, a URL and a shell, and is no digest.
    """
    if name == BASE:
        raise InvalidInput(f"'{BASE}' means no adapter", fix="Choose another name")
    if not _NAME.fullmatch(name) or DIGEST_PATTERN.fullmatch(name):
        raise InvalidInput(
            f"'{name}' cannot be an adapter's name",
            why=f"1 to {MAX_NAME_LENGTH} of a-z, 0-9, '.', '_' and '-', the first a letter or digit, and no digest",
            fix="Choose another name",
        )


def derive_name(*words: str) -> str:
    """Make a usable adapter name from these words; the last word is never shortened."""
    parts = [re.sub(r"[^a-z0-9._-]+", "-", word.lower()).strip("-._") for word in words]
    last = parts.pop()
    first = "-".join(filter(None, parts))[: MAX_NAME_LENGTH - 1 - len(last)].strip("-._")
    return f"{first or 'code'}-{last}"
