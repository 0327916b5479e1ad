"""Whether what comes out is Python: the answer by itself, or the whole file with the answer in its hole."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping


def syntax(text: str) -> Mapping[str, float]:
    """``syntax``: 1 if Python parses ``text`` and there is something in it, else 0."""
    if not text.strip():
        return {"syntax": 0.0}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"syntax": 0.0}
    return {"syntax": 1.0}
