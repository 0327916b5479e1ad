"""Entry point of a daemon spawned by a client: ``python -m peft_daemon.background``.

Not the command line, whose imports would take longer than the daemon needs to serve; settings and folders come from
the starter, so there is nothing to parse.
"""

from __future__ import annotations

import os
import sys

from peft_core.errors import InvalidInput, PeftDaemonError
from peft_daemon.app import create_app
from peft_daemon.lifecycle.background_process import take_handover
from peft_daemon.server import serve


def main() -> int:
    """Serve what the starter handed over; returns the exit code."""
    try:
        if (given := take_handover(os.environ)) is None:
            raise InvalidInput("this is started by clients only", fix="`peft-daemon serve` runs the daemon by hand")
        serve(*given, create_app)
    except PeftDaemonError as error:
        sys.stderr.write(f"peft-daemon: {error.line}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
