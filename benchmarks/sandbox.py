"""What running an answer in the sandbox costs, beside the same line in a bare interpreter.

    python benchmarks/sandbox.py [--rounds 40] [--json]

The three take turns; medians. A function under test is two processes, a program under test one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from peft_evaluation.sandbox.base import OPTIONS, SandboxLimits, SandboxOutcome
from peft_evaluation.sandbox.execution import run_function, run_program
from peft_evaluation.sandbox.sandboxes import Bubblewrap

CODE = "def f(x): return x + 1"
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sandbox, limits = Bubblewrap(), SandboxLimits()

    def bare() -> bool:
        command = [sys.executable, *OPTIONS, "-c", f"{CODE}\nassert f(1) == 2"]
        return subprocess.run(command, check=True).returncode == 0

    cases: dict[str, Callable[[], bool]] = {
        "bare interpreter": bare,
        "function": lambda: run_function(CODE, "f", (CHECK,), sandbox, limits).outcome is SandboxOutcome.PASSED,
        "program": lambda: run_program("print(2)", "", "2", sandbox, limits).outcome is SandboxOutcome.PASSED,
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, run in cases.items():
            began = time.perf_counter()
            if not run():
                sys.exit(f"{name} did not pass")
            times[name].append((time.perf_counter() - began) * 1000)
    found = {name: median(each) for name, each in times.items()}
    if options.json:
        print(json.dumps(found))
        return
    for name, milliseconds in found.items():
        print(f"{name:<18} {milliseconds:5.1f} ms   overhead {milliseconds - found['bare interpreter']:5.1f} ms")


if __name__ == "__main__":
    main()
