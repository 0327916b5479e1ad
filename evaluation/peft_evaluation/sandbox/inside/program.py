"""A whole program under test: standard input is the test's, what it prints is its answer; the caller compares.

Argument: the job's file descriptor. Exits with 1 when it raises.
"""

from __future__ import annotations

import json

from peft_evaluation.sandbox.inside import confine


def main() -> None:
    """Run it as ``__main__``."""
    job = json.loads(confine.job())
    confine.limit(job["seconds"], job["memory_bytes"], job["file_bytes"])
    code = compile(job["code"], "solution.py", "exec")
    exec(code, {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
