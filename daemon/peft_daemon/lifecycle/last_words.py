"""Why a daemon refused to serve, left for its starter: the error itself, not the text it printed.

So a client is told "the model is missing, run this" by the same error the daemon met.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from peft_core.api_types import ErrorBody
from peft_core.errors import PeftDaemonError, UnusablePath
from peft_core.files import read_private, remove_file, require_private_folder, write_private
from peft_core.paths import Paths
from peft_daemon.lifecycle.told_errors import body_of


@contextlib.contextmanager
def leaving_word(paths: Paths) -> Iterator[None]:
    """Leave word of an expected error that ends the context, and let it pass.

    A path that cannot be used is one, whatever tried to use it.
    """
    try:
        yield
    except (PeftDaemonError, OSError) as failure:
        if isinstance(failure, OSError) and not failure.filename:
            raise
        error = UnusablePath(failure) if isinstance(failure, OSError) else failure
        require_private_folder(paths.runtime)
        write_private(_file(paths), msgspec.json.encode(body_of(error)))
        raise error from None


def take_word(paths: Paths) -> ErrorBody | None:
    """The error the last daemon left, and forget it; None if it left none."""
    data = read_private(_file(paths))
    remove_file(_file(paths))
    with contextlib.suppress(ValueError, RecursionError):
        return msgspec.json.decode(data, type=ErrorBody) if data else None
    return None


def _file(paths: Paths) -> Path:
    return paths.runtime / "last-words.json"
