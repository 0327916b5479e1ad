"""The tests: run in a process of their own, with a stand-in that passes each call on to the code under test.

Arguments: the job's file descriptor, the one calls go to, the one replies come from, the one the verdict goes to.
The verdict is one line that begins with the job's secret, which the code under test never sees.
"""

from __future__ import annotations

import builtins
import json
import os
import sys

from peft_evaluation.sandbox.inside import confine, wire


class Gone(BaseException):
    """The code under test ended."""


class Opaque(Exception):
    """It gave something that is no plain data."""


class Raised(Exception):
    """It raised an exception that is not built in."""


def main() -> None:
    """Run ``check(candidate)`` and write the verdict."""
    job = json.loads(confine.job())
    calls, replies = os.fdopen(int(sys.argv[2]), "wb"), os.fdopen(int(sys.argv[3]), "rb")
    confine.limit(job["seconds"], job["memory_bytes"], job["file_bytes"])
    theirs: list[BaseException] = []

    def candidate(*arguments: object, **keywords: object) -> object:
        try:
            calls.write(wire.dump((arguments, keywords)))
            calls.flush()
            line = replies.readline(wire.LONGEST)
        except BrokenPipeError:
            raise Gone("ended") from None
        if not line.endswith(b"\n"):
            raise Gone("ended")
        try:
            kind, *rest = wire.load(line)
            if kind == "value":
                (value,) = rest
                return value
        except (wire.NotPlain, ValueError) as error:
            raise Gone(f"forged reply: {error}") from None
        theirs.append(_rebuilt(kind, *map(str, rest)))
        raise theirs[-1]

    outcome, why = "passed", ""
    try:
        space: dict[str, object] = {"__name__": "tests"}
        for part in job["tests"]:
            exec(compile(part, "tests.py", "exec"), space)  # noqa: S102
        check = space["check"]
        # Tests may name the function, too.
        space[job["function"]] = candidate
        check(candidate)  # type: ignore[operator]
    except Gone as error:
        outcome, why = "crashed", str(error)
    except BaseException as error:
        outcome = "raised" if any(error is each for each in theirs) else "failed"
        why = f"{type(error).__name__}: {error}"[:300]
    with os.fdopen(int(sys.argv[4]), "wb") as verdict:
        verdict.write(json.dumps([job["secret"], outcome, why]).encode() + b"\n")


def _rebuilt(kind: str, name: str, message: str = "") -> Exception:
    """What the code under test raised, as an exception here."""
    if kind != "raised":
        return Opaque(name)
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(message)
        except TypeError:
            pass
    return Raised(f"{name}: {message}")
