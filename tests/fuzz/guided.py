"""A search for faults in the readers of files that is guided by coverage.

    python -m fuzz.guided [--seconds N] [--out FOLDER] [TARGET …]

atheris tells libFuzzer which branches of the product's own code a case takes, and cases that take new ones are changed
further. A case is a number, which chooses a file of the target, and the content of that file. It may do what a case of
``test_parsers`` may. FOLDER has what led to new branches, from which the next search goes on, and inputs of faults: one
that is copied to ``recorded/TARGET`` is tried in every run of the tests. Each target has a process of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from random import Random

PACKAGES = ("peft_core", "peft_daemon", "peft_tuning", "peft_evaluation")
MAX_BYTES = 20_000
CASE_LIMIT_S = 120
"""Of one case, by libFuzzer; ``case`` has a limit on the time of the processor, which is shorter."""
MEMORY_MB = 4096
STRUCTURED = 0.6
"""Share of the changes that keep the form of the file, as those of ``mutation``; the others are libFuzzer's."""


def search(name: str, out: Path, seconds: float) -> None:
    """Search one target in this process, which ends with the search."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES)):
        from fuzz import targets
    from fuzz.case import attempt
    from fuzz.seeds import case_of, content_of, seeds

    target = next(each for each in targets.TARGETS if each.name == name)
    folder = Path(tempfile.mkdtemp(prefix="guided-"))
    target.prepare(folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    whole = (case_of(target, each, files[folder / each]) for each in target.changes)
    for number, case in enumerate([*whole, *seeds(target)]):
        (out / "corpus" / f"seed-{number}").write_bytes(case)

    def change(data: bytes, most: int, number: int) -> bytes:
        draw, (file, content) = Random(number), content_of(target, data)
        made: bytes
        if draw.random() < STRUCTURED:
            try:
                made = target.changes[file](content, draw)
            except Exception:  # what is no JSON any more
                made = atheris.Mutate(content, most - 1)
        else:
            made = atheris.Mutate(content, most - 1)
        return case_of(target, file, made)[:most]

    def one(data: bytes) -> None:
        file, content = content_of(target, data)
        attempt(target, folder, files, file, content)

    options = {
        "max_total_time": int(seconds),
        "max_len": MAX_BYTES,
        "timeout": CASE_LIMIT_S,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{out}/",
        "print_final_stats": 1,
        "seed": 1,
    }
    warnings.simplefilter("ignore")
    logging.disable()
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([name, *arguments, str(out / "corpus")], one, custom_mutator=change)
    atheris.Fuzz()


def searched(name: str, out: Path, seconds: float) -> tuple[int, int, str]:
    """Search a target in a child; how many cases it took, how many branches they met, and what it says of a fault."""
    (out / "corpus").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.guided", "--target", name, "--seconds", str(seconds), "--out", str(out)]
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": temporary},
        )
    told = done.stderr.decode(errors="replace")
    cases = re.findall(r"number_of_executed_units: (\d+)", told) or re.findall(r"^#(\d+)", told, re.M) or ["0"]
    branches = re.findall(r"cov: (\d+)", told) or ["0"]
    return int(cases[-1]), int(branches[-1]), told[-6000:] if done.returncode else ""


def main() -> None:
    """Search some targets, or all, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir(), "peft-daemon-guided"))
    parser.add_argument("--target", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.target is not None:
        search(given.target, given.out, given.seconds)
    if find_spec("atheris") is None:
        wanted = sys.platform == "linux" and platform.machine() == "x86_64"
        sys.exit("atheris is not there: `pip install --group fuzz`" if wanted else 0)
    from fuzz.seeds import folder_name
    from fuzz.targets import TARGETS

    failed = []
    for target in TARGETS:
        if given.targets and target.name not in given.targets:
            continue
        began = time.monotonic()
        cases, branches, fault = searched(target.name, given.out / folder_name(target), given.seconds)
        print(f"{target.name:20} {cases:9,} cases {branches:6,} branches {time.monotonic() - began:6.0f} s", flush=True)
        if fault:
            print(fault, flush=True)
            failed.append(target.name)
    if failed:
        sys.exit(f"faults in {', '.join(failed)}; their inputs are in {given.out}")


if __name__ == "__main__":
    main()
