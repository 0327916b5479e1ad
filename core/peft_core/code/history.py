"""What git knows about earlier commits: the lines that the newest commits added, and the tree as it was before them.

Git is read as in ``git``: it never goes online and starts no program that the repository's configuration names. Every
function has a time limit; what was not read by then is left out. Paths are relative to the folder that is given, with
``/`` between folders; files outside that folder are not seen. Rows are line numbers from 0; only ``\\n`` ends a line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from peft_core.code.git import MAX_LOG_S, head_commit, open_git, split_fields

MAX_HOLD_OUT_S = 30.0
"""Longest time in which ``hold_out`` looks for commits."""
MAX_READ_S = 600.0
"""Longest time for reading the files of a commit, with what the caller does between two of them."""
MAX_TEXT_BYTES = 500_000
"""Larger files are not read from a commit."""
MAX_REACH_SHARE = 50
"""The walk goes back by at least one part in so many of the lines wanted before it compares with HEAD again."""
_FILE_MODES = frozenset((b"100644", b"100755"))
_COMMIT = re.compile(rb"\x01([0-9a-f]{40,64})((?: [0-9a-f]{40,64})*)")
_NUMBERS = re.compile(rb"(\d+|-)\t(?:\d+|-)\t(.*)", re.DOTALL)
_HUNK = re.compile(rb"@@ -\S+ \+(\d+)(?:,(\d+))? @@")
_QUOTED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}
_SAME_EVERYWHERE = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all", "--submodule=short", "--no-relative"),
    *("--relative", "--find-renames", "-l1000", "--diff-algorithm=histogram", "--ignore-all-space"),
)
"""Options of a comparison, whatever the user's configuration says."""


@dataclass(frozen=True, kw_only=True)
class HeldOutCommits:
    """The newest commits of a history, and what they added together."""

    base: str
    """The commit before them."""
    head: str
    """The newest of them."""
    commits: int
    """How many of them changed files of the same types as the given ones."""
    added: Mapping[str, tuple[range, ...]]
    """For each path, the rows in ``head`` that are not in ``base``, in order. White space alone makes no new line."""
    lines: int
    """How many of these rows are not blank."""
    old_paths: Mapping[str, str]
    """The path in ``base`` of files that were renamed since, by their path in ``head``."""


def hold_out(
    root: Path, paths: Collection[str], *, lines: int, share: float, max_seconds: float = MAX_HOLD_OUT_S
) -> HeldOutCommits | None:
    """Find the newest commits that together added at least ``lines`` lines, not counting blank ones, to ``paths``.

    The walk goes from HEAD along first parents, so a merged branch counts as one commit. It stops earlier where the
    commits would have added more than ``share`` (0 to 1) of the lines of ``paths``, or where the history ends: the
    result then has fewer lines. Returns None if there is no commit, none before HEAD (also in a shallow clone), or if
    the newest commit alone adds more than that share. Raises Unavailable without git.
    """
    head = head_commit(root)
    if not head:
        return None
    until = time.monotonic() + max_seconds
    most = int(share * sum(_filled_lines(data) for _path, data in texts_at(root, head, paths)))
    target = min(lines, most)
    best: HeldOutCommits | None = None
    compared, walked, needed, before = 0, 0, target, ""
    commits = 0
    for commits, (base, added) in enumerate(_walk(root, head, paths, until), 1):
        walked += added
        if walked >= needed:
            found = _compare(root, base, head, paths, commits=commits, until=until)
            if found.lines > most:
                if compared == commits - 1:
                    return best
                found = _compare(root, before, head, paths, commits=commits - 1, until=until)
                return found if 0 < found.lines <= most else best
            compared, best = commits, found if found.lines else best
            if found.lines >= target:
                return best
            needed = walked + max(target - found.lines, target // MAX_REACH_SHARE)
        before = base
        if time.monotonic() > until:
            break
    if compared < commits:
        found = _compare(root, before, head, paths, commits=commits, until=until)
        best = found if 0 < found.lines <= most else best
    return best


def texts_at(
    root: Path,
    commit: str,
    paths: Collection[str],
    *,
    max_bytes: int = MAX_TEXT_BYTES,
    max_seconds: float = MAX_READ_S,
) -> Iterator[tuple[str, bytes]]:
    """Yield the content of ``paths`` as they are in a commit, in the order given.

    Left out are paths that are not in the commit, links, submodules, files larger than ``max_bytes``, and files whose
    content is not on this machine (a partial clone). Raises Unavailable without git.
    """
    objects = _objects(root, commit, paths, max_seconds)
    if not objects:
        return
    with open_git(root, "cat-file", "--batch", max_seconds=max_seconds) as (stdin, stdout):
        for path in paths:
            if path in objects:
                try:
                    stdin.write(objects[path] + b"\n")
                    stdin.flush()
                except OSError:  # git has ended: the time is up, or it cannot read this repository
                    return
                data = read_object(stdout, max_bytes)
                if data is not None:
                    yield path, data


def change_counts(
    root: Path, commit: str, paths: Collection[str], max_seconds: float = MAX_LOG_S
) -> Mapping[str, tuple[int, int]]:
    """Return, by path, how many commits up to ``commit`` changed it, and the time of the last (seconds since 1970).

    Merges do not count, and a file begins when it was given its name. The newest commits are read first; what the
    time does not suffice for is not counted. Paths without such a commit are left out. Raises Unavailable without git.
    """
    wanted = {path.encode(): path for path in paths}
    found: dict[str, tuple[int, int]] = {}
    listing = ("--name-only", "--no-renames", "--no-show-signature", "--no-ext-diff", "--no-follow", "--relative", "-z")
    command = ("log", "--no-merges", "--format=%x01%ct", *listing, commit, "--", *_patterns(paths))
    with open_git(root, *command, max_seconds=max_seconds) as (_stdin, stdout):
        when = 0
        for field in split_fields(stdout):
            name = field.lstrip(b"\n")
            if name.startswith(b"\x01") and name[1:].isdigit():
                when = int(name[1:])
            elif (path := wanted.get(name)) is not None:
                count, last = found.get(path, (0, when))
                found[path] = (count + 1, max(last, when))
    return found


def count_added_lines(root: Path, base: str, head: str, paths: Collection[str], max_seconds: float = MAX_LOG_S) -> int:
    """Return how many lines, blank ones too, ``head`` has in ``paths`` that the commit ``base`` has not.

    White space alone makes no new line, and a renamed file no new file. Raises Unavailable without git.
    """
    wanted = {path.encode() for path in paths}
    command = ("diff", *_SAME_EVERYWHERE, "--numstat", "-z", base, head, "--", *_patterns(paths))
    total = 0
    with open_git(root, *command, max_seconds=max_seconds) as (_stdin, stdout):
        fields = split_fields(stdout)
        for entry in fields:
            if (numbers := _NUMBERS.fullmatch(entry)) is None:
                continue
            name = numbers[2]
            if not name:  # renamed: the old name and the new one follow
                next(fields, b"")
                name = next(fields, b"")
            if name in wanted and numbers[1] != b"-":
                total += int(numbers[1])
    return total


def _walk(root: Path, head: str, paths: Collection[str], until: float) -> Iterator[tuple[str, int]]:
    """Yield, for each commit that changed files of these types, its first parent and the lines it added to ``paths``.

    Blank lines count here. The walk ends at a commit whose parent is not there.
    """
    wanted = {path.encode() for path in paths}
    listing = ("--numstat", "-z", *_SAME_EVERYWHERE, "--no-show-signature", "--no-follow")
    command = ("log", "-m", "--first-parent", "--format=%x01%H %P", *listing, head, "--", *_patterns(paths))
    with open_git(root, *command, max_seconds=max(0.0, until - time.monotonic())) as (_stdin, stdout):
        fields = split_fields(stdout)
        parent, added = "", 0
        for field in fields:
            entry = field.lstrip(b"\n")
            if commit := _COMMIT.fullmatch(entry):
                if parent:
                    yield parent, added
                parents = commit[2].split()
                if not parents:
                    return
                parent, added = parents[0].decode(), 0
            elif numbers := _NUMBERS.fullmatch(entry):
                name = numbers[2]
                if not name:  # renamed: the old name and the new one follow
                    old, name = next(fields, b""), next(fields, b"")
                    if name in wanted:
                        wanted.add(old)
                if name in wanted and numbers[1] != b"-":
                    added += int(numbers[1])
        if parent:
            yield parent, added


def _compare(root: Path, base: str, head: str, paths: Collection[str], *, commits: int, until: float) -> HeldOutCommits:
    """Find the rows of ``paths`` that ``head`` has and ``base`` has not."""
    wanted = {path.encode(): path for path in paths}
    added: dict[str, list[range]] = {}
    old_paths: dict[str, str] = {}
    lines = 0
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/", "-U0", "--inter-hunk-context=0", "--diff-filter=AMR")
    command = ("diff", *_SAME_EVERYWHERE, *prefixes, base, head, "--", *_patterns(paths))
    with open_git(root, *command, max_seconds=max(1.0, until - time.monotonic())) as (_stdin, stdout):
        path, old, in_header, link = None, b"", False, False
        for line in stdout:
            if line.startswith(b"diff --git "):
                path, old, in_header, link = None, b"", True, False
            elif in_header and line.startswith((b"index ", b"new file mode ")):
                link = link or line.endswith(b" 120000\n")
            elif in_header and line.startswith(b"rename from "):
                old = _unquote(line[len(b"rename from ") : -1])
            elif in_header and line.startswith(b"rename to "):
                path = wanted.get(_unquote(line[len(b"rename to ") : -1]))
                if path is not None:
                    old_paths[path] = old.decode("utf-8", "surrogateescape")
            elif in_header and not link and line.startswith(b"+++ "):
                path = wanted.get(_unquote(line[len(b"+++ ") : -1]).removeprefix(b"b/"))
            elif hunk := _HUNK.match(line):
                in_header = False
                count = int(hunk[2]) if hunk[2] is not None else 1
                if path is not None and count:
                    added.setdefault(path, []).append(range(int(hunk[1]) - 1, int(hunk[1]) - 1 + count))
            elif path is not None and not in_header and line.startswith(b"+"):
                lines += bool(line[1:].strip())
    return HeldOutCommits(
        base=base,
        head=head,
        commits=commits,
        added={path: tuple(ranges) for path, ranges in sorted(added.items())},
        lines=lines,
        old_paths=dict(sorted(old_paths.items())),
    )


def _objects(root: Path, commit: str, paths: Collection[str], max_seconds: float) -> Mapping[str, bytes]:
    """Return the names of the objects that are the content of ``paths`` in a commit, of plain files only."""
    wanted = {path.encode(): path for path in paths}
    found: dict[str, bytes] = {}
    with open_git(root, "ls-tree", "-r", "-z", commit, max_seconds=max_seconds) as (_stdin, stdout):
        for entry in split_fields(stdout):
            head, _tab, name = entry.partition(b"\t")
            path, parts = wanted.get(name), head.split()
            if path is not None and len(parts) == 3 and parts[0] in _FILE_MODES:
                found[path] = parts[2]
    return found


def read_object(stdout: IO[bytes], max_bytes: int) -> bytes | None:
    """Read one answer of ``git cat-file --batch``; None if the object is missing, or larger than ``max_bytes``."""
    parts = stdout.readline().split()
    if len(parts) != 3 or not parts[2].isdigit():
        return None
    size = int(parts[2])
    data = b""
    if size <= max_bytes:
        data = stdout.read(size)
    else:
        left = size
        while left and (piece := stdout.read(min(left, 1 << 20))):
            left -= len(piece)
    stdout.read(1)  # the line end after the content
    return data if len(data) == size else None


def _patterns(paths: Collection[str]) -> list[str]:
    """Return patterns for git that name all files of the same types as ``paths``; git takes no list of that length."""
    suffixes = {PurePosixPath(path).suffix for path in paths}
    return [f"*{suffix}" for suffix in sorted(suffixes)] if all(s[1:].isalnum() for s in suffixes) else ["."]


def _unquote(name: bytes) -> bytes:
    """Return a file name as it is from how a patch writes it."""
    if not name.startswith(b'"'):
        return name.removesuffix(b"\t")
    inner = name.rstrip(b"\t")[1:-1]
    return _QUOTED.sub(
        lambda match: bytes([int(match[1], 8) & 255]) if len(match[1]) == 3 else _ESCAPES.get(match[1], match[1]), inner
    )


def _filled_lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.split(b"\n"))
