"""Many commands in one process, as ``python -m peft_daemon`` runs each: it imports only once.

Run as a script: a JSON list of [arguments, variables] comes in; one of [exit code, stdout, stderr] goes out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LIMIT_S = 800
Call = tuple[Sequence[str], Mapping[str, str]]
Said = tuple[int, str, str]


def run(calls: Sequence[Call], environ: Mapping[str, str], *, cwd: Path | None = None) -> list[Said]:
    """All of them, in a process with this environment besides each call's own."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(calls),
        env={**os.environ, **environ},
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT_S,
        umask=0o022,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def _said(arguments: Sequence[str], variables: Mapping[str, str]) -> Said:
    environ, path = dict(os.environ), sys.path[:]
    os.environ.update(variables)
    sys.argv = ["peft-daemon", *arguments]
    code = 0
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("peft_daemon", run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out.flush()
        err.flush()
        said = [each.buffer.getvalue().decode() for each in (out, err)]  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:] = path
    return code, said[0], said[1]


if __name__ == "__main__":
    given = json.load(sys.stdin)
    answers = [_said(arguments, variables) for arguments, variables in given]
    print(json.dumps(answers))
