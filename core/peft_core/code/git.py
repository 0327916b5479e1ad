"""What git knows about a folder: tracked files, ignore rules, attributes, and when each file last changed.

Git is only read, never goes online, and starts no program that the repository's own configuration names. No files of
the repository are opened here. What git knows about earlier commits is in ``history``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from peft_core.errors import InvalidInput, Unavailable
from peft_core.processes import find_program, run, start

MAX_LOG_S = 30.0
"""Longest time for reading the history; files not found by then count as the oldest."""
MAX_ANSWER_S = 60.0
"""Longest time for any other answer: a pipe in the place of a rule file would be waited for without end."""
_SAFE = (
    *("-c", "core.fsmonitor=false", "-c", "protocol.allow=never", "-c", "core.quotepath=off"),
    # The repository's own setting may name a device without an end.
    *("-c", f"core.attributesFile={os.devnull}"),
)
_REPOSITORY_VARIABLES = frozenset(
    f"GIT_{name}"
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR", "OBJECT_DIRECTORY", "NAMESPACE")
)
"""Variables that point git to another repository; set while a hook runs."""
_PROGRAM_VARIABLES = frozenset(
    f"GIT_{name}"
    for name in (
        "ASKPASS",
        "EDITOR",
        "EXTERNAL_DIFF",
        "PAGER",
        "PROXY_COMMAND",
        "SEQUENCE_EDITOR",
        "SSH",
        "SSH_COMMAND",
    )
)
"""Variables that name programs to start; none is needed here."""
_FOREIGN = "dubious ownership"
"""In git's words for a repository of another user."""
_SUBMODULE, _LINK = "160000", "120000"


@dataclass(frozen=True)
class TrackedFile:
    """One entry of git's index below a folder; ``path`` is relative to that folder, with ``/`` in it."""

    path: bytes
    submodule: bool
    link: bool


def require_work_tree(root: Path) -> None:
    """Raise InvalidInput unless ``root`` is a folder in a git work tree, Unavailable if git is missing."""
    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder", fix="Give the folder of a git repository: --repo PATH")
    try:
        inside = _git(root, "rev-parse", "--is-inside-work-tree").strip() == b"true"
        why = "it is git's own folder, or a bare repository"
    except InvalidInput as error:
        inside, why = False, error.why
    if _FOREIGN in why:
        raise InvalidInput(
            f"{root} belongs to another user",
            why=why,
            fix=f"If you trust it: git config --global --add safe.directory {shlex.quote(str(root.resolve()))}",
        )
    if not inside:
        raise InvalidInput(
            f"{root} is not in a git work tree",
            why=why or "only tracked files are learned from, so that nothing private slips in",
            fix="Run `git init` and `git add` there, or give another folder with --repo PATH",
        )


def head_commit(root: Path) -> str:
    """Return the commit that is checked out; empty if there is none yet."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except InvalidInput:
        return ""


def committed_at(root: Path, commit: str) -> float:
    """Return when a commit was made, in seconds since 1970."""
    return float(_git(root, "show", "--no-patch", "--format=%ct", f"{commit}^{{commit}}").split()[-1])


def top_level(folder: Path) -> Path:
    """Return the top folder of the work tree that ``folder`` lies in, without links in its path.

    Raises InvalidInput without one, and where the repository's own settings name another folder than that which its
    `.git` lies in (`core.worktree`): a stranger's repository would have the user's folder for its own. Raises
    Unavailable if git is missing.
    """
    top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").rstrip(b"\n"))).resolve()
    inside = folder.resolve()
    nearest = next((each for each in (inside, *inside.parents) if (each / ".git").exists()), None)
    if nearest != top:
        raise InvalidInput(
            f"{folder} is in a repository whose settings claim another folder",
            why=f"`core.worktree` says {top}",
            fix="Look at .git/config there, and remove `core.worktree` if you trust the rest",
        )
    return top


def has_commit(root: Path, commit: str) -> bool:
    """Return whether a commit is in this clone; one that a rewritten history has dropped may be gone."""
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except InvalidInput:
        return False
    return True


def count_commits(root: Path, *, at_most: int) -> int:
    """Return how many commits lead to the one that is checked out, counted up to ``at_most``; 0 without any."""
    try:
        return int(_git(root, "rev-list", "--count", f"--max-count={at_most}", "HEAD", "--"))
    except InvalidInput:
        return 0


def is_shallow(root: Path) -> bool:
    """Return whether the clone has the newest part of its history only."""
    return _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true"


def tracked_files(root: Path) -> tuple[TrackedFile, ...]:
    """Return the entries of git's index below ``root``, sorted by path; a file in conflict counts once."""
    found: dict[bytes, TrackedFile] = {}
    for entry in _git(root, "ls-files", "-z", "--stage").split(b"\0"):
        head, tab, path = entry.partition(b"\t")
        if tab:
            mode = head[:6].decode()
            found[path] = TrackedFile(path, mode == _SUBMODULE, mode == _LINK)
    return tuple(found[path] for path in sorted(found))


def ignored_paths(root: Path) -> frozenset[bytes]:
    """Return tracked files that an ignore rule names: added by force, or before the rule was there."""
    listed = _git(root, "ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
    return frozenset(listed.split(b"\0")) - {b""}


def visible_paths(root: Path) -> frozenset[bytes]:
    """Return the files below ``root`` that are tracked or could be added, except those an ignore rule names."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return frozenset(listed.split(b"\0")) - ignored_paths(root) - {b""}


def path_attributes(root: Path, paths: Sequence[bytes], names: Sequence[str]) -> Mapping[str, frozenset[bytes]]:
    """Return, for each attribute of ``.gitattributes`` in ``names``, the paths that have it set."""
    found: dict[str, set[bytes]] = {name: set() for name in names}
    if paths:
        answer = _git(root, "check-attr", "-z", "--stdin", *names, stdin=b"\0".join(paths) + b"\0").split(b"\0")
        for path, name, value in zip(answer[::3], answer[1::3], answer[2::3], strict=False):
            if value in {b"set", b"true"}:
                found[name.decode()].add(path)
    return {name: frozenset(those) for name, those in found.items()}


def last_commits(root: Path, paths: Collection[bytes], max_seconds: float = MAX_LOG_S) -> Mapping[bytes, int]:
    """Return the time of the newest commit that changed each of ``paths``, in seconds since 1970.

    The history is read until all are found or the time is up. Paths that were not found are left out.
    """
    wanted = set(paths)
    found: dict[bytes, int] = {}
    listing = ("--name-only", "--no-renames", "--no-show-signature", "--relative", "-z")
    until = time.monotonic() + max_seconds
    command = ("log", "--format=%x01%ct", *listing, "HEAD", "--", ".")
    with open_git(root, *command, max_seconds=max_seconds) as (_stdin, stdout):
        when = 0
        for number, field in enumerate(split_fields(stdout)):
            stamp = field.lstrip(b"\n")
            if stamp.startswith(b"\x01") and stamp[1:].isdigit():
                when = int(stamp[1:])
            elif stamp in wanted:
                wanted.discard(stamp)
                found[stamp] = when
            if not wanted or (number % 4096 == 0 and time.monotonic() > until):
                break
    return found


def split_fields(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the NUL-separated fields of a stream, read in pieces: a history may be larger than memory."""
    rest = b""
    while piece := stream.read(1 << 16):
        *whole, rest = (rest + piece).split(b"\0")
        yield from whole
    if rest:
        yield rest


@contextmanager
def open_git(root: Path, *arguments: str, max_seconds: float) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Start git in ``root`` and provide its input and output; it is killed at the end, or when the time is up.

    Output that ends early looks like output that is complete.
    """
    process = start(
        _command(root, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        environ=_environment(),
    )
    assert process.stdin is not None  # noqa: S101  (both were asked for)
    assert process.stdout is not None  # noqa: S101
    timer = threading.Timer(max_seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield process.stdin, process.stdout
    finally:
        timer.cancel()
        process.kill()
        process.stdout.close()
        with suppress(OSError):  # what was not written yet has no reader
            process.stdin.close()
        process.wait()


def _command(root: Path, *arguments: str) -> list[str]:
    program = find_program("git", root.absolute())
    if program is None:
        raise Unavailable(
            "git is not installed", why="it says which files are yours to learn from", fix="Install git and try again"
        )
    return [program, "-C", str(root.absolute()), *_SAFE, *arguments]


def _environment() -> dict[str, str]:
    """Return our environment without variables that choose a repository or a program; git may not ask or fetch."""
    kept = {key: value for key, value in os.environ.items() if key not in _REPOSITORY_VARIABLES | _PROGRAM_VARIABLES}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}


def _git(root: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    try:
        done = run(
            _command(root, *arguments),
            input=stdin,
            capture_output=True,
            check=True,
            timeout=MAX_ANSWER_S,
            environ=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(
            f"git {arguments[0]} did not answer in {MAX_ANSWER_S:.0f} s in {root}",
            why="a file that git reads there may be a pipe or a device",
            fix="Run `git status` there, and look at .gitignore, .gitattributes and .git/config",
        ) from None
    except subprocess.CalledProcessError as error:
        raise InvalidInput(
            f"git {arguments[0]} failed in {root}",
            why=error.stderr.decode("utf-8", "replace").strip().split("\n")[0],
            fix="Run `git status` there; it says more",
        ) from None
    output: bytes = done.stdout
    return output
