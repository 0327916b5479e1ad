"""Builds a tiny project in a process of its own, as the command line does: ``tiny_build.py ARCHIVE HOME``.

The archive's description is JSON on stdin. Prints the counts of what was compiled and the program's path as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import msgspec

from peft_cli.output import termination_interrupts
from peft_core.paths import Paths
from peft_daemon.engines.builds.builder import Builder, BuildOptions
from peft_daemon.engines.builds.source import SourceArchive
from support.tiny_sources import NotedProgress


def main() -> int:
    # Where the tests run in the background of a shell, Ctrl-C is ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    archive = msgspec.json.decode(sys.stdin.buffer.read(), type=SourceArchive)
    progress = NotedProgress()
    options = BuildOptions(local=Path(sys.argv[1]), archive=archive, jobs=2)
    try:
        with termination_interrupts():
            build = Builder(options, Paths.from_environment({"PEFT_DAEMON_HOME": sys.argv[2]}), progress).run()
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"counts": progress.counts, "path": str(build.server)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
