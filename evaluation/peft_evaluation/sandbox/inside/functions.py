"""Entry points of two processes: one with the function under test, one with its judge.

They exchange plain data. The process with the code under test gets only the code: no expected value, no assertion and
no secret.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import types

from peft_evaluation.sandbox.inside import confine, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def answer_calls() -> None:
    """Define the function under test, and answer each call with one line until there are no more calls.

    Arguments: the file descriptors of the job, of the calls and of the replies.
    """
    job = json.loads(confine.read_job())
    calls, replies = os.fdopen(int(sys.argv[2]), "rb"), os.fdopen(int(sys.argv[3]), "wb")
    confine.limit(job["seconds"], job["memory_bytes"], job["file_bytes"])
    confine.silence(0, 1, 2)
    function: Callable[..., object] | None = None
    failure: BaseException | None = None
    try:
        function = _defined(job["code"], job["function"])
    except BaseException as error:
        failure = error
    for line in calls:
        try:
            if function is None:
                raise failure or NameError(job["function"])
            arguments, keywords = wire.load(line)
            reply = wire.dump(("value", function(*arguments, **keywords)))
        except wire.NotPlain as error:
            reply = wire.dump(("opaque", str(error)[:200]))
        except BaseException as error:
            reply = wire.dump(("raised", type(error).__name__, _text(error)))
        replies.write(reply)
        replies.flush()


def _defined(code: str, name: str) -> Callable[..., object]:
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(compile(code, "solution.py", "exec"), module.__dict__)  # noqa: S102
    found = module.__dict__.get(name)
    # In APPS the function may be a method of "class Solution".
    if found is None and isinstance(solution := module.__dict__.get("Solution"), type):
        found = getattr(solution(), name, None)
    if found is None:
        raise NameError(f"{name} is not defined")
    return found  # type: ignore[no-any-return]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:
        return ""


class CandidateEnded(BaseException):
    """The process with the code under test has ended."""


class NotPlainResult(Exception):
    """The code under test returned a value that is not plain data."""


class CandidateRaised(Exception):
    """The code under test raised an exception that is not built into Python."""


def judge_function() -> None:
    """Run ``check(candidate)`` with a function that forwards each call to the code under test; write the verdict.

    Arguments: the file descriptors of the job, of the calls, of the replies and of the verdict. The verdict is one line
    that begins with the job's secret, which the code under test never sees.
    """
    job = json.loads(confine.read_job())
    calls, replies = os.fdopen(int(sys.argv[2]), "wb"), os.fdopen(int(sys.argv[3]), "rb")
    confine.limit(job["seconds"], job["memory_bytes"], job["file_bytes"])
    raised: list[BaseException] = []

    def candidate(*arguments: object, **keywords: object) -> object:
        try:
            calls.write(wire.dump((arguments, keywords)))
            calls.flush()
            line = replies.readline(wire.MAX_LINE_BYTES)
        except BrokenPipeError:
            raise CandidateEnded("ended") from None
        if not line.endswith(b"\n"):
            raise CandidateEnded("ended")
        try:
            kind, *rest = wire.load(line)
            if kind == "value":
                (value,) = rest
                return value
        except (wire.NotPlain, ValueError) as error:
            raise CandidateEnded(f"forged reply: {error}") from None
        raised.append(_rebuilt(kind, *map(str, rest)))
        raise raised[-1]

    outcome, why = "passed", ""
    try:
        space: dict[str, object] = {"__name__": "tests"}
        for part in job["tests"]:
            exec(compile(part, "tests.py", "exec"), space)  # noqa: S102
        check = space["check"]
        # Tests may also call the function by its name.
        space[job["function"]] = candidate
        check(candidate)  # type: ignore[operator]
    except CandidateEnded as error:
        outcome, why = "crashed", str(error)
    except BaseException as error:
        outcome = "raised" if any(error is each for each in raised) else "failed"
        why = f"{type(error).__name__}: {error}"[:300]
    with os.fdopen(int(sys.argv[4]), "wb") as verdict:
        verdict.write(json.dumps([job["secret"], outcome, why]).encode() + b"\n")


def _rebuilt(kind: str, name: str, message: str = "") -> Exception:
    """Return the exception that the code under test raised, as an exception of this process."""
    if kind != "raised":
        return NotPlainResult(name)
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(message)
        except TypeError:
            pass
    return CandidateRaised(f"{name}: {message}")
