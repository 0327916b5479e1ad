"""Find out which holes the user's tests can judge, before the model answers.

The tests run twice with the user's own code; an answer has to pass those that pass both times. Then they run once for
each hole with broken code in it; if all of them still pass, the tests do not exercise the hole, and it gets no tests.
The results are kept (``tests-….json``, ``broken-….jsonl``), named by a digest of everything they depend on.
"""

from __future__ import annotations

import ast
import hashlib
import json
import keyword
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import msgspec

from peft_core import files
from peft_core.code import git
from peft_core.code.document import normalize_newlines
from peft_core.errors import InvalidInput, NotFound, TooLarge
from peft_evaluation.datasets.catalogue import OnLoading
from peft_evaluation.journal import Journal
from peft_evaluation.repo_tests import interpreter
from peft_evaluation.sample import RepositoryTests, Sample, SampleSet
from peft_evaluation.sandbox.base import Sandbox, SandboxOutcome, SandboxVerdict, SandboxWorkspace
from peft_evaluation.sandbox.inside.suite import LINK
from peft_evaluation.sandbox.pytest_suite import PytestSuite, report_suite
from peft_evaluation.verification import Verification, verification_key, verify_texts
from peft_tuning.data.examples import FillExample

MAX_ADDED_BYTES = 64 * 2**20
"""Bytes that tests may write in addition to the repository's files."""
TIME_FACTOR, MIN_SECONDS = 3.0, 10.0
"""Time limit with an answer: this factor times the tests' time with the user's own code, but at least these seconds."""
PACK = "repository.pack"


@dataclass(frozen=True, kw_only=True)
class RepositoryTestsRequest:
    """The options for running a repository's own tests."""

    repository: Path
    arguments: tuple[str, ...] = ()
    """Arguments of pytest."""
    python: Path | None = None
    """The interpreter; None: ``.venv`` of the repository, or the interpreter that runs this."""


class BaselineRun(msgspec.Struct, frozen=True, kw_only=True):
    """The tests' results with the user's own code."""

    passes: tuple[str, ...]
    """Ids of the tests that passed in both runs."""
    collected: int
    """Number of tests found."""
    files: frozenset[str]
    """Files with tests, relative to the repository."""
    changed: frozenset[str]
    """Functions of pytest, unittest and the interpreter that the tests replace."""
    seconds: float
    """Time of the longer of the two runs."""


def prepare(
    items: SampleSet,
    own: RepositoryTestsRequest,
    sandbox: Sandbox,
    folder: Path,
    *,
    workers: int,
    on_progress: OnLoading,
) -> SampleSet:
    """Return the items, with ``RepositoryTests`` where the tests exercise the hole; results are kept in ``folder``.

    Raises NotFound if there is no pytest or no test, InvalidInput if no test passes with the user's own code or no hole
    is exercised, what ``pack`` raises, and OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    on_progress("packing the repository", 0, 1)
    suite = suite_of(own, folder)
    reference = baseline_run(suite, sandbox, folder, on_progress)
    suite = replace(
        suite,
        passes=reference.passes,
        changed=reference.changed,
        seconds=max(TIME_FACTOR * reference.seconds, MIN_SECONDS),
        digest=_digest(suite.digest, *reference.passes),
    )
    left_out: Counter[str] = Counter()
    placed: dict[str, tuple[Sample, str]] = {}
    for item in items.items:
        found = _placed(item, suite, own.repository.resolve(), reference.files)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            placed[item.id] = found
    journal = Journal(folder / f"broken-{suite.digest[:16]}.jsonl", Verification)
    noticed = _noticed(placed, sandbox, workers, journal, on_progress)
    left_out["not reached by them"] += len(placed) - len(noticed)
    if not noticed:
        raise InvalidInput(
            f"your tests exercise none of the {len(items.items)} holes",
            why=_listed(left_out),
            fix="Leave --run-tests out, or run more tests with --pytest-args",
        )
    return replace(
        items,
        items=tuple(placed[item.id][0] if item.id in noticed else item for item in items.items),
        notes=(*items.notes, *_notes(len(noticed), len(items.items), reference, left_out)),
    )


def suite_of(own: RepositoryTestsRequest, folder: Path) -> PytestSuite:
    """Pack the repository into ``folder`` and return the suite to run.

    Raises what ``find`` and ``pack`` raise.
    """
    repository = own.repository.resolve()
    python = interpreter.find(repository, own.python)
    packed = pack(repository, folder / PACK)
    facts = (packed.digest, python.python, python.prefix, python.pytest, *own.arguments)
    return PytestSuite(
        workspace=SandboxWorkspace(
            folder=str(repository),
            room_bytes=packed.bytes + MAX_ADDED_BYTES,
            python=python.python,
            mounts=python.mounts(repository),
        ),
        pack=str(folder / PACK),
        site=python.site,
        prefix=python.prefix,
        arguments=own.arguments,
        digest=_digest(*facts),
    )


def baseline_run(suite: PytestSuite, sandbox: Sandbox, folder: Path, on_progress: OnLoading) -> BaselineRun:
    """Return the results with the user's own code, from ``folder`` or from two runs.

    Raises as ``prepare`` does.
    """
    path = folder / f"tests-{suite.digest[:16]}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=BaselineRun)
    on_progress("running your tests", 0, 2)
    began = time.monotonic()
    first = report_suite(suite, None, sandbox, suite.limits)
    took = time.monotonic() - began
    if isinstance(first, SandboxVerdict):
        raise InvalidInput(
            "your tests do not end in the sandbox",
            why=f"{first.outcome}: {first.why}",
            fix="Choose tests that do, e.g. `--pytest-args tests/unit`; docs/sandbox.md says what they find there",
        )
    if not first.collected:
        raise NotFound(
            f"pytest finds no tests in {suite.workspace.folder}",
            why=first.why,
            fix="Say where they are: `--pytest-args tests`",
        )
    if not first.passed:
        raise InvalidInput(
            f"none of your {first.collected} tests passes in the sandbox with your own code",
            why=first.why,
            fix="Name their interpreter with --python; docs/sandbox.md says what tests find in the sandbox",
        )
    on_progress("running your tests", 1, 2)
    began = time.monotonic()
    again = report_suite(replace(suite, passes=tuple(sorted(first.passed))), None, sandbox, suite.limits)
    took = max(took, time.monotonic() - began)
    # The second run ends at the first failing test, so it is unknown whether the tests after it are reliable.
    if isinstance(again, SandboxVerdict) or not again.passed:
        raise InvalidInput(
            "your tests pass in one run and fail in the next",
            why=again.why,
            fix="Leave out the unreliable ones, e.g. `--pytest-args '--deselect …'`",
        )
    root = Path(suite.workspace.folder)
    found = BaselineRun(
        passes=tuple(sorted(first.passed & again.passed)),
        collected=first.collected,
        files=frozenset(
            Path(each).relative_to(root).as_posix() for each in first.files if Path(each).is_relative_to(root)
        ),
        changed=first.changed | again.changed,
        seconds=took,
    )
    files.write_durable(path, msgspec.json.encode(found))
    return found


def _placed(item: Sample, suite: PytestSuite, repository: Path, tests: frozenset[str]) -> tuple[Sample, str] | str:
    """Return the item with its tests, and the text that breaks its hole; or the reason why it gets no tests."""
    example = item.example
    if not isinstance(example, FillExample) or example.language != "python":
        return "not in Python"
    if example.path in tests or PurePosixPath(example.path).name == "conftest.py":
        return "in a test"
    sides = _sides(example, repository)
    if sides is None:
        return "in a file that changed meanwhile"
    text = break_hole(sides[0], example.middle, sides[1])
    if text is None:
        return "not to be broken so that the file parses"
    tests_of = RepositoryTests(path=example.path, before=sides[0], after=sides[1], suite=suite)
    return replace(item, tests=tests_of), text


def _sides(example: FillExample, repository: Path) -> tuple[str, str] | None:
    """Return the whole file before and after the hole; None if the file has changed.

    The example itself has only a part of the file, without secrets.
    """
    try:
        text = normalize_newlines((repository / example.path).read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return None
    # The id is path:line:kind:character, and the prefix has the whole beginning of the hole's line.
    row = int(example.id.rsplit(":", 3)[1]) - 1
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[:row]) + len(example.prefix) - example.prefix.rfind("\n") - 1
    end = start + len(example.middle)
    return (text[:start], text[end:]) if text[start:end] == example.middle else None


def _noticed(
    placed: Mapping[str, tuple[Sample, str]],
    sandbox: Sandbox,
    workers: int,
    journal: Journal[Verification],
    on_progress: OnLoading,
) -> frozenset[str]:
    """Return the ids of the items whose tests fail with the broken text."""
    what = "breaking holes, to see which your tests notice"
    wanted = {verification_key(name, text): (item, text) for name, (item, text) in placed.items()}
    on_progress(what, 0, len(wanted))
    with journal:
        verify_texts(
            wanted,
            sandbox,
            workers=workers,
            journal=journal,
            on_progress=lambda event: on_progress(what, event.done, event.of),
        )
        ran = {each.key: each for each in journal.read()}
    return frozenset(item.id for found, (item, _) in wanted.items() if ran[found].outcome is not SandboxOutcome.PASSED)


def _notes(noticed: int, of: int, reference: BaselineRun, left_out: Mapping[str, int]) -> Sequence[str]:
    failing = reference.collected - len(reference.passes)
    return (
        f"{noticed} of {of} holes are exercised by your tests, and pass@k is of those alone"
        + (f"; left out are {_listed(left_out)}." if noticed < of else "."),
        f"An answer has to pass {len(reference.passes)} tests"
        + (f"; {failing} more do not pass in the sandbox with your own code." if failing else "."),
    )


def _listed(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()) if count)


def _digest(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode(errors="surrogateescape")).hexdigest()


_CLOSES = {")": "(", "]": "[", "}": "{"}
_NAME = "broken_here"


def break_hole(before: str, middle: str, after: str) -> str | None:
    """Return a text in place of ``middle`` that breaks the code but still parses; None if there is none.

    The first that parses: a statement that raises an exception, an expression that does, an undefined name, ``middle``
    with its first word (other than keywords) replaced, the empty text.
    """
    for candidate in _candidates(middle):
        if candidate != middle and _parses(before + candidate + after):
            return candidate
    return None


def _candidates(middle: str) -> Iterator[str]:
    # Not an Exception, which the code around the hole may catch.
    yield "raise BaseException"
    tail = _tail(middle)
    for expression in ("(1 // 0)", _NAME):
        yield expression + tail
    for word in re.finditer(r"\w+", middle):
        if not keyword.iskeyword(word[0]):
            yield middle[: word.start()] + _NAME + middle[word.end() :]
            break
    yield ""


def _tail(middle: str) -> str:
    """Return the brackets that ``middle`` closes but does not open, and a comma or colon at its end.

    Brackets in strings count as well.
    """
    opened: list[str] = []
    tail = ""
    for character in middle:
        if character in _CLOSES.values():
            opened.append(character)
        elif character in _CLOSES:
            if opened and opened[-1] == _CLOSES[character]:
                opened.pop()
            else:
                tail += character
    return tail + (middle[-1] if middle and middle[-1] in ":," else "")


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


MAX_PACK_BYTES = 256 * 2**20
"""Bytes of all files together; each run has them in memory."""
PAGE_BYTES = 4096
"""A file takes a whole number of pages."""


@dataclass(frozen=True, kw_only=True)
class RepositoryPack:
    """A repository's files in one file, for the sandbox."""

    digest: str
    """sha256 of its content."""
    bytes: int
    """Bytes that the files take when they are unpacked."""


def pack(repository: Path, target: Path) -> RepositoryPack:
    """Write the tracked files of ``repository`` to ``target``, which only the user can read.

    Raises TooLarge for more than ``MAX_PACK_BYTES``, OSError, and what git raises.
    """
    entries: list[tuple[str, int, int]] = []
    contents: list[bytes] = []
    room = 0
    for entry in git.tracked_files(repository):
        path = os.fsdecode(entry.path)
        found = None if entry.submodule else _read_tracked(repository / path)
        if found is None:
            continue
        mode, content = found
        entries.append((path, mode, len(content)))
        contents.append(content)
        room += -(-len(content) // PAGE_BYTES) * PAGE_BYTES + PAGE_BYTES
        if room > MAX_PACK_BYTES:
            raise TooLarge(
                f"{repository} is too large to run its tests in a copy",
                why=f"its tracked files take more than {MAX_PACK_BYTES >> 20} MB",
                fix="Leave --run-tests out, or give a smaller folder with --repo",
            )
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for piece in (json.dumps(entries).encode() + b"\n", *contents):
            file.write(piece)
            digest.update(piece)
    return RepositoryPack(digest=digest.hexdigest(), bytes=room)


def _read_tracked(file: Path) -> tuple[int, bytes] | None:
    """Return mode and content of a tracked file; None if it does not exist any more."""
    if file.is_symlink():
        return LINK, os.fsencode(file.readlink())
    if not file.is_file():
        return None
    return (0o755 if os.access(file, os.X_OK) else 0o644), file.read_bytes()
