"""Every command of ``peft-daemon`` in this process, and what it says. Run as a script it prints one JSON line each.

python every_command.py UID FOLDER      as this user, with FOLDER for what commands read and write
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

MODEL = "qwen2.5-coder-0.5b-instruct"
COMMANDS = {
    "setup": [],
    "serve": [],
    "start": ["--no-wait"],
    "stop": [],
    "status": [],
    "why": [],
    "doctor": [],
    "lsp": [],
    "generate": ["add two numbers"],
    "complete": ["--file", "{folder}/a.py", "--line", "1", "--column", "5"],
    "tune": ["--dataset", "conala", "--name", "mine"],
    "learn on": ["--repository", "{folder}"],
    "learn off": ["--repository", "{folder}"],
    "learn status": ["--repository", "{folder}"],
    "learn now": ["--repository", "{folder}"],
    "learn pause": ["1h"],
    "learn resume": [],
    "learn rollback": ["--repository", "{folder}"],
    "learn log": [],
    "evaluate": ["--dataset", "conala", "--limit", "1"],
    "config": [],
    "config set": ["log_format", "text"],
    "config unset": ["look_ahead"],
    "engine build": ["--from", "{folder}/sources.tar.gz"],
    "engine list": [],
    "engine measure": [],
    "models optimize": ["--remove"],
    "models list": [],
    "models pull": [MODEL],
    "models remove": [MODEL],
    "models add": ["{folder}/model.gguf"],
    "models found": [],
    "adapters merge": ["one", "two", "--name", "sum"],
    "adapters list": [],
    "adapters show": ["mine"],
    "adapters use": ["base"],
    "adapters unset": ["--repository", "{folder}"],
    "adapters rollback": ["mine"],
    "adapters import": ["{folder}", "--name", "mine"],
    "adapters export": ["mine", "{folder}/out"],
    "adapters remove": ["mine"],
    "datasets list": [],
    "datasets show": ["conala"],
    "report list": [],
    "report open": ["mine"],
    "report compare": ["one", "two"],
    "report against": ["one", "zero-shot"],
    "report share": ["one", "{folder}/shared"],
    "bench typing": ["--quick"],
    "bench edits": ["--source", "{folder}", "--quick"],
    "upstream agree": ["--yes"],
    "upstream check": [],
    "upstream withdraw": [],
    "upstream login": [],
    "upstream logout": [],
    "feedback show": [],
    "feedback clear": ["--yes"],
    "feedback export": ["{folder}/feedback.jsonl"],
}
"""Arguments with which each does all it can do without a model and a network."""
QUICK = [command for command in COMMANDS if command not in ("lsp", "tune")]
"""Without the one that takes over the descriptors of its process, and the one that loads torch before all else."""


@dataclass(frozen=True)
class Said:
    """The end of one command."""

    command: str
    exit_code: int
    out: str
    err: str


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """All commands of the command line, as they are typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield " ".join((*path, name))


def run(command: str, folder: Path) -> Said:
    """One command, as the console script runs it; standard input is at its end."""
    from peft_cli import main

    handlers, before = logging.root.handlers[:], sys.argv
    # The entry point takes what is relative out of both, for the whole of its process.
    environ, path = dict(os.environ), sys.path[:]
    sys.argv = ["peft-daemon", *command.split(), *(each.format(folder=folder) for each in COMMANDS[command])]
    # Files, not strings: commands may ask for the descriptor.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.argv, sys.path[:] = before, path
            os.environ.clear()
            os.environ.update(environ)
            logging.root.handlers[:] = handlers
            if faulthandler.is_enabled():
                faulthandler.enable(sys.__stderr__)
        return Said(command, code, *(_whole(file) for file in (out, err)))


def _whole(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def _be(user: int) -> None:
    """Go on as another user, for whom modes of folders count."""
    # What is loaded later may lie where only root can read.
    given = os.environ["PEFT_DAEMON_HOME"]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.write_text("")
        os.environ["PEFT_DAEMON_HOME"] = str(home)
        for command in QUICK:
            run(command, Path(folder))
    os.environ["PEFT_DAEMON_HOME"] = given
    os.setgid(user)
    os.setuid(user)


if __name__ == "__main__":
    if int(sys.argv[1]) != os.getuid():
        _be(int(sys.argv[1]))
    for each in QUICK:
        print(json.dumps(asdict(run(each, Path(sys.argv[2])))), flush=True)
