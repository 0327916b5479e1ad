"""The code under test: defines a function, then answers calls of it. Holds no expected value and no verdict.

Arguments: the job's file descriptor, the one calls come from, the one replies go to.
"""

from __future__ import annotations

import json
import os
import sys
import types

from peft_evaluation.sandbox.inside import confine, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Answer one line per call until there are no more."""
    job = json.loads(confine.job())
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
    # APPS: "class Solution" with the function as a method.
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
