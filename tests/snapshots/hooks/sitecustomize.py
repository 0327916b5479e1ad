"""Loaded by each Python of the recorded home (its folder is on PYTHONPATH): adds a tiny model, and takes notes.

Nothing of the product is named here, so that moving its modules changes nothing:

- SURFACE_MODEL: a TOML table that is put in front of the models of the catalogue.
- SURFACE_NOTES: a file that gets the daemon's routes, and a JSON schema of each value that is decoded or encoded.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from typing import Any

_loads, _seen = tomllib.loads, set[bytes]()
MODELS = "[[models]]"


def _with_tiny_model(text: str, /, **options: Any) -> dict[str, Any]:
    model = os.environ.get("SURFACE_MODEL")
    if model and MODELS in text and "package-index" in text:
        text = text.replace(MODELS, f"{model}\n{MODELS}", 1)
    return _loads(text, **options)


def _note(kind: str, value: object) -> None:
    line = json.dumps({kind: value}).encode() + b"\n"
    if line in _seen:
        return
    _seen.add(line)
    file = os.open(os.environ["SURFACE_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)


def _take_notes() -> None:
    import msgspec
    from starlette.applications import Starlette

    decode, encode, begin = msgspec.json.decode, msgspec.json.encode, Starlette.__init__

    def decoding(raw: Any, **options: Any) -> Any:
        kind = options.get("type")
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            _note("decoded", [bytes(raw).decode() if not isinstance(raw, str) else raw, msgspec.json.schema(kind)])
        return decode(raw, **options)

    def encoding(value: Any, **options: Any) -> bytes:
        raw = encode(value, **options)
        if isinstance(value, msgspec.Struct):
            _note("encoded", [raw.decode(), msgspec.json.schema(type(value))])
        return raw

    def beginning(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        _note("routes", [[r.path, sorted(r.methods)] for r in self.routes])

    msgspec.json.decode, msgspec.json.encode = decoding, encoding  # type: ignore[assignment]
    Starlette.__init__ = beginning  # type: ignore[method-assign]


tomllib.loads = _with_tiny_model  # type: ignore[assignment]
if os.environ.get("SURFACE_NOTES") and "serve" in sys.orig_argv:
    _take_notes()
