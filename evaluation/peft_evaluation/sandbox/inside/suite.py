"""A repository's own tests with one file changed: unpacks it, runs pytest in this process, and writes what passed.

Arguments: the file descriptors of the job, of the packed files, of the secret, and of the file the report goes into.
The report begins with the secret, which is read only after the last test.
"""

from __future__ import annotations

import json
import os
import site
import sys

from peft_evaluation.sandbox.inside import confine

MAX_OPEN_FILES = 256
LINK = 0o120000
"""A mode; others are permissions."""


def run_suite() -> None:
    """Run them; the process ends without anything that tests left to be run at its end."""
    job = json.loads(confine.read_job())
    pack, secret, report = map(int, sys.argv[2:5])
    unpack(pack)
    if job["path"]:
        put(job["path"], job["text"])
    confine.silence(0, 1, 2)
    # Libraries for numbers work on all cores.
    seconds = job["seconds"] * (os.cpu_count() or 1)
    confine.resources(seconds, job["memory_bytes"], job["file_bytes"], MAX_OPEN_FILES)
    os.environ.update(HOME="/tmp", LANG="C.UTF-8")  # noqa: S108  (its own)
    expected = frozenset(job["expected"]) if job["expected"] is not None else None
    said = _run(job["arguments"], expected, job["site"], job["prefix"])
    said["secret"] = os.read(secret, 100).decode()
    line = json.dumps(said).encode()
    # Whatever else was written there is gone.
    os.ftruncate(report, 0)
    os.pwrite(report, line, 0)
    os._exit(0)


def _run(arguments: list[str], expected: frozenset[str] | None, packages: list[str], prefix: str) -> dict[str, object]:
    """Run pytest and return what ``sandbox.pytest_suite`` reads, without the secret."""
    sys.prefix = sys.exec_prefix = prefix
    for folder in packages:
        site.addsitedir(folder)
    site.setquit()
    site.sethelper()
    import pytest  # noqa: PLC0415  (the user's, only now to be found)

    from peft_evaluation.sandbox.inside.pytest_plugin import PassRecorder  # noqa: PLC0415

    # The repository may have a package of this name.
    for name in [each for each in sys.modules if each.partition(".")[0] == "peft_evaluation"]:
        del sys.modules[name]
    # As ``python -m pytest`` does.
    sys.path[0] = os.getcwd()  # noqa: PTH109
    sys.argv = ["pytest", *arguments]
    watch = PassRecorder(expected)
    try:
        status = int(pytest.main([*arguments, "--continue-on-collection-errors", "--maxfail=0"], [watch]))
        why = watch.why or f"pytest ended with status {status}"
        outcome = watch.outcome or "failed"
    except BaseException as error:
        outcome, why = "raised", f"{type(error).__name__}: {error}"[:300]
    return {
        "passed": watch.passed,
        "files": sorted(watch.files),
        "changed": watch.changed,
        "collected": watch.collected,
        "outcome": outcome,
        "why": why,
    }


def unpack(descriptor: int) -> None:
    """Write all files of a pack below the working folder, and close ``descriptor``. Raises OSError, ValueError.

    A pack is a line of JSON, ``[[path, mode, bytes], …]``, then the contents one after the other. A link's content is
    its target.
    """
    made = set()
    with os.fdopen(descriptor, "rb") as pack:
        for path, mode, size in json.loads(pack.readline()):
            folder = os.path.dirname(path)  # noqa: PTH120  (pathlib takes as long to import as to unpack)
            if folder and folder not in made:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103
                made.add(folder)
            content = pack.read(size)
            if mode == LINK:
                os.symlink(content, path)  # noqa: PTH211
                continue
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(file, "wb", 0) as out:
                out.write(content)


def put(path: str, text: str) -> None:
    """Write ``text`` instead of what a file holds."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123
        file.write(text)
