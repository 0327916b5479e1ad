"""Reading and writing alone and beside programs that keep cores busy, for several ways in which threads wait.

    python benchmarks/busy_cores.py [--busy 0 --busy 1 …] [--way auto --way 20000 …] [--threads N] [--rounds N]

A way is a value of the setting ``wait_policy``, or the turns that a thread spins before it sleeps. Prints one line of
JSON for each way and load: the rates of each round, in tokens per second. The ways take turns, so that the ratios of
one run can be compared; a round that takes longer than a minute is given up and counts as null.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
from engines import once, read_rate, write_rate

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.engines.temporary import temporary_engine
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

LIMIT_S = 60.0
SETTLED_S = 3.0
"""After which an engine has seen that its start is over."""
WAYS = ("active", "passive", "auto")


@contextlib.contextmanager
def busy(programs: int) -> Iterator[None]:
    """So many programs that compute and never wait."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


async def rates(settings: Settings, model: Path, programs: int) -> tuple[float, float] | None:
    """Tokens per second read and written by an engine of its own, which has been used before it is measured."""
    entry = catalogue.get(settings.model)
    async with temporary_engine(settings, entry, model, context_tokens=2048) as engine:
        await once(engine, 1)
        await asyncio.sleep(SETTLED_S)
        try:
            with busy(programs):
                timings = await asyncio.wait_for(once(engine, 2), LIMIT_S)
        except TimeoutError:
            return None
    return round(read_rate(timings), 1), round(write_rate(timings), 1)


def main() -> None:
    """Measure all ways at all loads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, action="append", help="programs beside it (0, 1 and 2)")
    parser.add_argument("--way", action="append", help=f"a wait policy, or turns before a sleep ({', '.join(WAYS)})")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    paths = Paths.from_environment()
    settings = Settings(threads=asked.threads, speculation="off", kv_states_mb=0)  # the text repeats
    model = open_store(settings, paths).path(catalogue.get(settings.model))
    for programs in asked.busy or (0, 1, 2):
        found: defaultdict[str, list[tuple[float, float] | None]] = defaultdict(list)
        for _ in range(asked.rounds):
            for way in asked.way or WAYS:
                os.environ.pop("GOMP_SPINCOUNT", None)
                chosen = settings
                if way.isdecimal():
                    os.environ["GOMP_SPINCOUNT"] = way
                else:
                    chosen = msgspec.structs.replace(settings, wait_policy=way)
                found[way].append(asyncio.run(rates(chosen, model, programs)))
        for way, results in found.items():
            print(json.dumps({"busy": programs, "way": way, "read_and_written_tok_s": results}), flush=True)


if __name__ == "__main__":
    main()
