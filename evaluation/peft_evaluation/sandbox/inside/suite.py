"""Run a repository's own tests with one file changed: unpack the files, run pytest in this process, write a report.

Arguments: the file descriptors of the job, of the packed files, of the secret, and of the report. The report includes
the secret, which is read only after the last test.
"""

from __future__ import annotations

import json
import os
import site
import sys

from peft_evaluation.sandbox.inside import confine

MAX_OPEN_FILES = 256
LINK = 0o120000
"""The mode of a symbolic link; other modes are permissions."""


def run_suite() -> None:
    """Run the tests and end the process, without running exit handlers that the tests registered."""
    job = json.loads(confine.read_job())
    pack, secret, report = map(int, sys.argv[2:5])
    unpack(pack)
    if job["path"]:
        replace_text(job["path"], job["text"])
    confine.silence(0, 1, 2)
    # Numerical libraries use all cores, which counts as processor time.
    seconds = job["seconds"] * (os.cpu_count() or 1)
    confine.limit_resources(seconds, job["memory_bytes"], job["file_bytes"], MAX_OPEN_FILES)
    os.environ.update(HOME="/tmp", LANG="C.UTF-8")  # noqa: S108  (the sandbox's own)
    expected = frozenset(job["expected"]) if job["expected"] is not None else None
    said = _run(job["arguments"], expected, job["site"], job["prefix"])
    said["secret"] = os.read(secret, 100).decode()
    line = json.dumps(said).encode()
    # Deletes whatever the tests wrote there.
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
    import pytest  # noqa: PLC0415  (the user's; can be found only now)

    from peft_evaluation.sandbox.inside.pytest_plugin import PassRecorder  # noqa: PLC0415

    # The repository may have a package of this name.
    for name in [each for each in sys.modules if each.partition(".")[0] == "peft_evaluation"]:
        del sys.modules[name]
    # The same as ``python -m pytest`` does.
    sys.path[0] = os.getcwd()  # noqa: PTH109
    sys.argv = ["pytest", *arguments]
    recorder = PassRecorder(expected)
    try:
        status = int(pytest.main([*arguments, "--continue-on-collection-errors", "--maxfail=0"], [recorder]))
        why = recorder.why or f"pytest ended with status {status}"
        outcome = recorder.outcome or "failed"
    except BaseException as error:
        outcome, why = "raised", f"{type(error).__name__}: {error}"[:300]
    return {
        "passed": recorder.passed,
        "files": sorted(recorder.files),
        "changed": recorder.changed,
        "collected": recorder.collected,
        "outcome": outcome,
        "why": why,
    }


def unpack(descriptor: int) -> None:
    """Write all files of a pack into the working folder, and close ``descriptor``.

    Raises OSError, ValueError. A pack is a line of JSON, ``[[path, mode, bytes], …]``, followed by the contents. A
    link's content is its target.
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


def replace_text(path: str, text: str) -> None:
    """Replace the content of a file by ``text``."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123
        file.write(text)
