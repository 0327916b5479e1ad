"""The adapters that come with the package, and their import into the user's registry.

They are in ``shipped/``, one PEFT folder each. An adapter that fits the base of a home is imported into it once, like
any other adapter. If it is for filling in, it is used wherever no other adapter is; one for sentences is used only when
the user chooses it. Afterwards the user decides: a choice, a rollback or a removal is never undone. A newer version in
a newer package becomes the next version of the name, unless the user has let the name point at something else. One that
takes another's place (``SUCCESSORS``) serves where that one did unchosen.

Earlier packages used an adapter for sentences without a user's choice. Their homes are corrected once
(``withdraw_unchosen``).

    shipped.json        name -> what of it was imported
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from peft_core import files
from peft_core.api_types import Task
from peft_core.errors import Conflict
from peft_core.files import file_sha256
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import Manifest, TrainingRecord
from peft_daemon.adapters.peft_files import CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models.catalogue import open_catalogue
from peft_daemon.models.store import open_store

SHIPPED_FOLDER = Path(__file__).with_name("shipped")
DEFAULT_SHIPPED_TASKS = (Task.FILL,)
"""Tasks for which a shipped adapter is used without a user's choice. The base model answers sentences best."""
SUCCESSORS = {"code-fim": "python-fim"}
"""Shipped adapters, and those of earlier packages whose place they take."""

log = logging.getLogger("peft_daemon.adapters")


class _ShippedRecord(msgspec.Struct, frozen=True):
    content: str
    """Hash of the shipped files, by which an unchanged adapter is recognized without reading the base."""
    digest: str
    """The digest in the registry."""
    put_in_use: tuple[Task, ...] | None = None
    """Tasks for which it is used without a user's choice; None, from earlier packages: all it was trained for."""


def import_shipped_adapters(
    registry: AdapterRegistry,
    base: BaseModel,
    shipped: Path = SHIPPED_FOLDER,
    *,
    answers: tuple[Task, ...] = tuple(Task),
    successors: Mapping[str, str] = SUCCESSORS,
) -> list[Manifest]:
    """Import the shipped adapters for ``base`` that are new to this registry; returns those imported.

    Those for tasks that this base does not answer are left out. Raises what ``AdapterRegistry.import_`` raises, and
    Conflict for an unreadable ``shipped.json``. May be called at any time, also by several processes at once.
    """
    imported = []
    for folder in _for_base(shipped, base.sha256, answers):
        name, content = folder.name, _hash_content(folder)
        records = _read(registry)
        before, replaced = records.get(name), successors.get(name, "")
        provided = records.get(replaced)
        history = registry.history(name)
        if (history[-1].digest if history else None) != (before.digest if before else None):
            continue
        if before is not None and before.content == content and (not history or registry.is_intact(before.digest)):
            continue
        manifest = registry.import_(folder, name=name, base=base)
        # Only at the first import: a user who has chosen the base since then keeps it.
        tasks = tuple(task for task in manifest.tasks if task in DEFAULT_SHIPPED_TASKS and task in answers)
        for task in tasks if before is None else ():
            if registry.withdraw(replaced, provided.digest, task) if provided else registry.resolve(task) is None:
                registry.use(name, task)
        _write(registry, {**_read(registry), name: _ShippedRecord(content, manifest.digest, tasks)})
        imported.append(manifest)
    return imported


def withdraw_unchosen(registry: AdapterRegistry) -> list[str]:
    """Stop using adapters for sentences that an earlier package put in use unasked; returns their names.

    An adapter that the user seems to have chosen stays in use. This is done once for a home. Raises Conflict for an
    unreadable ``shipped.json``.
    """
    withdrawn = []
    for name, provided in _read(registry).items():
        if provided.put_in_use is None:
            if registry.withdraw(name, provided.digest, Task.INTENT):
                withdrawn.append(name)
            unchosen = msgspec.structs.replace(provided, put_in_use=DEFAULT_SHIPPED_TASKS)
            _write(registry, {**_read(registry), name: unchosen})
    return withdrawn


def update_shipped_adapters(settings: Settings, paths: Paths) -> list[Manifest]:
    """Import the shipped adapters for the base models in use, unless the settings turn them off.

    A home of an earlier package is corrected first. Raises NotFound if a base model is not installed.
    """
    registry = AdapterRegistry(paths.adapters)
    for name in withdraw_unchosen(registry):
        log.info("%s, which was never chosen, no longer answers sentences: the base model does", name)
    if not settings.shipped_adapters:
        return []
    by_task, store = open_catalogue(paths).by_task(settings), open_store(settings, paths)
    imported = []
    for entry in {entry.id: entry for entry in by_task.values()}.values():
        base = BaseModel(entry.id, entry.sha256, store.path(entry))
        answers = tuple(task for task, model in by_task.items() if model.id == entry.id)
        imported += import_shipped_adapters(registry, base, answers=answers)
    return imported


def shipped_adapter_names(base_sha256: str, shipped: Path = SHIPPED_FOLDER) -> tuple[str, ...]:
    """Return the names of the shipped adapters that fit this base."""
    return tuple(folder.name for folder in _for_base(shipped, base_sha256, tuple(Task)))


def _for_base(shipped: Path, base_sha256: str, answers: tuple[Task, ...]) -> Iterator[Path]:
    for folder in sorted(shipped.iterdir()):
        if (folder / RECORD_FILE).is_file():
            record = msgspec.json.decode((folder / RECORD_FILE).read_bytes(), type=TrainingRecord)
            if record.base_sha256 == base_sha256 and (not record.tasks or set(record.tasks) & set(answers)):
                yield folder


def _hash_content(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE):
        digest.update(file_sha256(folder / name).encode())
    return digest.hexdigest()


def _state_file(registry: AdapterRegistry) -> Path:
    return registry.folder / "shipped.json"


def _read(registry: AdapterRegistry) -> dict[str, _ShippedRecord]:
    path = _state_file(registry)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _ShippedRecord])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise Conflict(f"cannot read {path}", why=str(error), fix="Delete it") from None


def _write(registry: AdapterRegistry, provided: dict[str, _ShippedRecord]) -> None:
    files.write_durable(_state_file(registry), msgspec.json.format(msgspec.json.encode(provided), indent=2))
