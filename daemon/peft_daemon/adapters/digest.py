"""The content digest of an adapter: equal exactly when the same factors act on the same base in the same way.

Order of tensors in the file, metadata, timestamps, names and training settings do not enter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from peft_daemon.adapters.tensors import Tensor
    from peft_daemon.adapters.validation import LoraModule

_FORMAT = "peft-daemon adapter 1"


def adapter_digest(modules: Iterable[LoraModule], base_sha256: str) -> str:
    """sha256, in hex, of the base's sha256 and of each module's name, scale and stored factors.

    A header of all names, types and shapes comes first, its length before it, so that no two adapters can have the
    same byte sequence.
    """
    ordered = sorted(modules, key=lambda module: module.name)
    header = msgspec.json.encode(
        {
            "format": _FORMAT,
            "base": base_sha256,
            "modules": [_described(module) for module in ordered],
        },
        order="sorted",
    )
    total = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for module in ordered:
        total.update(module.a.data)
        total.update(module.b.data)
        if module.magnitude is not None:
            total.update(module.magnitude.data)
    return total.hexdigest()


def tensors_digest(kind: str, tensors: Mapping[str, Tensor], base_sha256: str) -> str:
    """The same for a method whose tensors say everything: its kind, and their names, types, shapes and numbers."""
    ordered = sorted(tensors.items())
    header = msgspec.json.encode(
        {
            "format": _FORMAT,
            "base": base_sha256,
            "kind": kind,
            "tensors": [[name, tensor.dtype, tensor.shape] for name, tensor in ordered],
        },
        order="sorted",
    )
    total = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for _, tensor in ordered:
        total.update(tensor.data)
    return total.hexdigest()


def _described(m: LoraModule) -> tuple[object, ...]:
    plain = (m.name, float(m.scale).hex(), m.a.dtype, m.a.shape, m.b.dtype, m.b.shape)
    return plain if m.magnitude is None else (*plain, m.magnitude.dtype, m.magnitude.shape)
