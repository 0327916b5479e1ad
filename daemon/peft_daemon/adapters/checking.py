"""Which kind of adapter a PEFT folder holds, and the check for that kind.

LoRA is in ``validation``, the methods that only the torch engine serves are in ``vectors``. A whole fine-tuned model
is no adapter: it is a base of its own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from peft_core.errors import InvalidInput
from peft_daemon.adapters import lora_config, peft_files, vectors
from peft_daemon.adapters.facts import CheckedAdapter
from peft_daemon.adapters.validation import BaseModel, validate


def check(folder: Path, base: BaseModel) -> CheckedAdapter:
    """Check the adapter in ``folder`` against ``base``.

    Raises InvalidInput for an adapter nothing should load or no engine can serve, Conflict for one that was made for
    another base.
    """
    kind = lora_config.read((folder / peft_files.CONFIG).read_bytes()).get("peft_type")
    if kind == "LORA":
        return validate(folder, base)
    if isinstance(kind, str) and kind in vectors.KINDS:
        return vectors.validate(folder, base, vectors.KINDS[kind])
    raise InvalidInput(
        f"peft_type is {kind!r}",
        why=f"known types are LORA, {', '.join(vectors.KINDS)}",
        fix="Tune with one of `peft-daemon tune`'s methods, or merge the adapter into its base",
    )


def drop_ignored_keys(folder: Path) -> str:
    """Rewrite the config of a checked adapter without the keys that were ignored; returns a sentence naming them.

    What is stored is then what was understood: an export hands no name of code on. Empty when nothing was ignored.
    """
    path = folder / peft_files.CONFIG
    values = lora_config.read(path.read_bytes())
    known = lora_config.KNOWN if values["peft_type"] == "LORA" else vectors.KINDS[values["peft_type"]].keys
    ignored = lora_config.ignored_keys(values, known)
    if not ignored:
        return ""
    path.write_bytes(msgspec.json.format(msgspec.json.encode({k: v for k, v in values.items() if k not in ignored})))
    reasons = [
        f"{key} (names Python code, and no code of an adapter is run)"
        if key in lora_config.CODE
        else f"{key} (unknown)"
        for key in ignored
    ]
    return f"Ignored in {peft_files.CONFIG}: {', '.join(reasons)}"
