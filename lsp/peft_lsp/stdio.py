"""The process of ``peft-daemon lsp``: one editor on standard input and output.

Standard output belongs to the protocol: everything else that writes to it, a child process included, ends up in
standard error.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import BinaryIO

from peft_lsp.framing import MalformedHeader, complain
from peft_lsp.handlers import initialize


def run(log_level: str = "warning") -> int:
    """Serve one editor until it leaves; returns the exit code (0 after a proper shutdown, else 1)."""
    stdin, stdout = sys.stdin.buffer, _take_stdout()
    try:
        handshake = initialize.shake_hands(stdin, stdout)
    except MalformedHeader as error:
        complain(error)
        return 1
    if handshake is None:
        return 1
    # Loading the library makes some hundred thousand objects that stay; a collector that looks through them for garbage
    # meanwhile takes a sixth of the time.
    gc.disable()
    from peft_lsp.server import serve  # noqa: PLC0415

    gc.enable()
    return serve(handshake, stdin, stdout, log_level)


def _take_stdout() -> BinaryIO:
    sys.stdout.flush()
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own
