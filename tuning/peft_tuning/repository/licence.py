"""A guess at the licence of a folder, from the words of its licence file; for the model card, no legal advice."""

from __future__ import annotations

from pathlib import Path

OWN = "own code"
"""Where there is no licence file."""
_PHRASES = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("PSF-2.0", ("python software foundation license",)),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software",)),
    ("MIT", ("permission is hereby granted, free of charge",)),
    ("Unlicense", ("this is free and unencumbered software",)),
)
"""The most special first: a licence may quote another."""


def licence_of(root: Path) -> str:
    """The SPDX id of the licence file in ``root``; ``own code`` without one, ``unknown`` for words not known here."""
    names = sorted(
        each for each in root.iterdir() if each.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "UNLICENSE"))
    )
    file = next((each for each in names if each.is_file()), None)
    if file is None:
        return OWN
    words = " ".join(file.read_text(encoding="utf-8", errors="replace")[:20_000].lower().split())
    return next((spdx for spdx, phrases in _PHRASES if all(phrase in words for phrase in phrases)), "unknown")
