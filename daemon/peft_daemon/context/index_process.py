"""The process that holds the indexes of workspaces: it gives up what it does not need, and then serves."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NoReturn

from peft_core.child_main import CommandReader, run_child
from peft_core.fence import Fence, raise_fence
from peft_core.process_identity import kill_children
from peft_core.processes import WORKING_FOLDER


def main() -> None:
    """Serve until stdin closes."""
    run_child(serve, at_end=kill_children, confine=confine)


def confine(_first_line: bytes) -> None:
    """Give up the network and all writing. It reads any folder: which ones are opened is not known beforehand."""
    raise_fence(Fence(reads=(Path(WORKING_FOLDER),), programs=True))


def serve(commands: CommandReader, output: BinaryIO) -> NoReturn:
    """Answer requests and read files in between."""
    # Importing it begins threads (those of numpy), which would keep what is given up.
    from peft_daemon.context import index_server  # noqa: PLC0415

    index_server.serve(commands, output)


if __name__ == "__main__":
    main()
