"""Whether a text is Python; nothing is run."""

from __future__ import annotations

import ast
import warnings


def parses(code: str) -> bool:
    """Whether ``code`` is Python to the running interpreter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful escape in somebody's string is not the user's concern
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
