"""Pulls one model in a process of its own, as the command line does.

``puller.py FOLDER LIMIT`` with the catalogue entry as JSON on stdin; LIMIT, if not 0, is the largest file in bytes that
the process may write.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import msgspec

from peft_cli.models import pull_with_progress
from peft_cli.output import report
from peft_core.errors import PeftDaemonError
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.store import ModelStore


def main() -> int:
    # Where the tests run in the background of a shell, Ctrl-C is ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    entry = msgspec.json.decode(sys.stdin.buffer.read(), type=ModelEntry)
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        model = pull_with_progress(ModelStore(folder, offline=False), entry)
    except PeftDaemonError as error:
        return report(error, as_json=False)
    print(model.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
