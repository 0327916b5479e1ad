"""How many threads compute, and how they wait for each other; the same for llama.cpp and torch."""

from __future__ import annotations

import os
from typing import Literal

WaitPolicy = Literal["active", "passive"]
"""How threads wait for each other, in OpenMP's words; docs/performance.md has what was measured."""
SPINS = 3000
"""Turns for which a thread that waits passively watches for the others before it sleeps. libgomp's own 300,000 last
about 1 ms: once something else runs on a core, each of a token's hundreds of meetings waits for the scheduler."""


def default_threads() -> int:
    """The physical cores this process may use: hyper-threads only get in each other's way when decoding."""
    import psutil  # noqa: PLC0415  (children of an engine are told their number, and start sooner without)

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def set_wait_policy(policy: WaitPolicy) -> None:
    """Decide how OpenMP's threads wait for each other in this process; what the environment says already is kept.

    Has an effect only before llama.cpp or torch is loaded, and only where libgomp runs their threads.
    """
    if policy == "passive" and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
