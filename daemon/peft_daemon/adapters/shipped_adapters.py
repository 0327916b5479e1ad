"""The adapters that come with the package, and their import into the user's registry.

They lie in ``shipped/``, one PEFT folder each. The first time a home sees one that fits its base, it is imported like
any other. One that fills in serves wherever nothing is chosen yet; one that answers sentences waits to be chosen. From
then on it is the user's: what was chosen, rolled back or removed stays so. A newer version in a newer package becomes
the next version of the name, unless the name means something else by then.

Earlier packages let an adapter answer sentences without having been chosen. Their homes change over once
(``withdraw_unchosen``).

    shipped.json        name -> what of it was provided
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
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
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

SHIPPED_FOLDER = Path(__file__).with_name("shipped")
DEFAULT_SHIPPED_TASKS = (Task.FILL,)
"""Tasks that a shipped adapter serves without having been chosen. Sentences are answered best by the base model."""

log = logging.getLogger("peft_daemon.adapters")


class _ShippedRecord(msgspec.Struct, frozen=True):
    content: str
    """Hash of the shipped files, by which an unchanged adapter is recognized without a look at the base."""
    digest: str
    """The digest in the registry."""
    put_in_use: tuple[Task, ...] | None = None
    """The tasks it was to serve unchosen; None: all it was trained for, as earlier packages had it."""


def import_shipped_adapters(
    registry: AdapterRegistry, base: BaseModel, shipped: Path = SHIPPED_FOLDER
) -> list[Manifest]:
    """Import what is shipped for ``base`` and new to this registry; returns what was imported.

    Raises what ``AdapterRegistry.import_`` raises, and Conflict for an unreadable ``shipped.json``. May be called at
    any time, also by several processes at once.
    """
    imported = []
    for folder in _for_base(shipped, base.sha256):
        name, content = folder.name, _hash_content(folder)
        before = _read(registry).get(name)
        history = registry.history(name)
        if (history[-1].digest if history else None) != (before.digest if before else None):
            continue
        if before is not None and before.content == content and (not history or registry.is_intact(before.digest)):
            continue
        manifest = registry.import_(folder, name=name, base=base)
        # Only at first: whoever chose the base afterwards keeps it.
        tasks = tuple(task for task in manifest.tasks if task in DEFAULT_SHIPPED_TASKS)
        for task in tasks if before is None else ():
            if registry.resolve(task) is None:
                registry.use(name, task)
        _write(registry, {**_read(registry), name: _ShippedRecord(content, manifest.digest, tasks)})
        imported.append(manifest)
    return imported


def withdraw_unchosen(registry: AdapterRegistry) -> list[str]:
    """Take sentences from the adapters that an earlier package let answer them; returns their names.

    Where there is a sign that the user chose the adapter it stays. Done once for a home. Raises Conflict for an
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
    """Import the shipped adapters for the chosen base, once that is fetched, unless the settings say no.

    A home of an earlier package is changed over first.
    """
    registry = AdapterRegistry(paths.adapters)
    for name in withdraw_unchosen(registry):
        log.info("%s, which was never chosen, no longer answers sentences: the base model does", name)
    if not settings.shipped_adapters:
        return []
    entry = catalogue.get(settings.model)
    base = BaseModel(entry.id, entry.sha256, open_store(settings, paths).path(entry))
    return import_shipped_adapters(registry, base)


def _for_base(shipped: Path, base_sha256: str) -> Iterator[Path]:
    for folder in sorted(shipped.iterdir()):
        if (folder / RECORD_FILE).is_file():
            record = msgspec.json.decode((folder / RECORD_FILE).read_bytes(), type=TrainingRecord)
            if record.base_sha256 == base_sha256:
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
