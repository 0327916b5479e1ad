"""What running a repository's own tests in the sandbox costs, beside the same pytest on the same files without one.

    python benchmarks/own_tests.py REPOSITORY [--rounds 10] [--python PATH] [--pytest-args ARGS] [--json]

The two take turns; medians. Both run only tests that pass in the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from peft_evaluation.repo_tests.preparation import RepositoryTestsRequest, baseline_run, suite_of
from peft_evaluation.sandbox.base import SandboxOutcome
from peft_evaluation.sandbox.pytest_suite import run_suite
from peft_evaluation.sandbox.sandboxes import Bubblewrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pytest-args", default="")
    options = parser.parse_args()
    sandbox, arguments = Bubblewrap(), tuple(shlex.split(options.pytest_args))
    with tempfile.TemporaryDirectory() as folder:
        own = RepositoryTestsRequest(repository=options.repository, arguments=arguments, python=options.python)
        suite = suite_of(own, Path(folder))
        reference = baseline_run(suite, sandbox, Path(folder), lambda *_: None)
        suite = replace(suite, passes=reference.passes, changed=reference.changed)
        plain = [str(options.python), "-m", "pytest", "-q", *arguments, *reference.passes]
        times: dict[str, list[float]] = {"pytest": [], "sandbox": []}
        for _ in range(options.rounds):
            began = time.perf_counter()
            subprocess.run(
                plain,
                cwd=options.repository,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            times["pytest"].append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            if run_suite(suite, None, sandbox, suite.limits).outcome is not SandboxOutcome.PASSED:
                sys.exit("the tests do not pass in the sandbox every time")
            times["sandbox"].append((time.perf_counter() - began) * 1000)
        found = {name: median(each) for name, each in times.items()}
        packed = Path(suite.pack).stat().st_size
    if options.json:
        print(json.dumps(found))
        return
    print(f"{len(reference.passes)} of {reference.collected} tests, {packed / 2**20:.1f} MB of files")
    for name, milliseconds in found.items():
        print(f"{name:<10} {milliseconds:7.1f} ms   overhead {milliseconds - found['pytest']:6.1f} ms")


if __name__ == "__main__":
    main()
