"""Where an evaluation runs, for its report."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from peft_evaluation.results import Machine


def this_machine(nodes: int = 1) -> Machine:
    """Processor, cores, memory, system, and the accelerator that torch sees, if any; ``nodes`` is noted."""
    import torch  # noqa: PLC0415  (seconds; only at the end of a run)

    return Machine(
        processor=processor_name(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        nodes=nodes,
    )


def processor_name() -> str:
    """Its name as the system gives it; platform.processor() is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
