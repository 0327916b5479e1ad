"""What an adapter may be called: a word that is safe in a path, a URL and a shell, and is no digest."""

from __future__ import annotations

import re

from peft_core.api_types import BASE
from peft_core.errors import InvalidInput
from peft_daemon.adapters.blobs import DIGEST

LONGEST = 64
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{LONGEST - 1}}}")


def require_usable(name: str) -> None:
    """Raises InvalidInput for what cannot be an adapter's name."""
    if name == BASE:
        raise InvalidInput(f"'{BASE}' means no adapter", fix="Choose another name")
    if not _NAME.fullmatch(name) or DIGEST.fullmatch(name):
        raise InvalidInput(
            f"'{name}' cannot be an adapter's name",
            why=f"1 to {LONGEST} of a-z, 0-9, '.', '_' and '-', the first a letter or digit, and no digest",
            fix="Choose another name",
        )


def named_after(*words: str) -> str:
    """A usable name made of these words, as near to them as can be; the last one is kept whole."""
    parts = [re.sub(r"[^a-z0-9._-]+", "-", word.lower()).strip("-._") for word in words]
    last = parts.pop()
    first = "-".join(filter(None, parts))[: LONGEST - 1 - len(last)].strip("-._")
    return f"{first or 'code'}-{last}"
