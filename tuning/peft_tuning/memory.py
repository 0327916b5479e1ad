"""How much memory a run holds at its peak, and how much there is: CUDA memory on a GPU, resident memory otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import psutil
import torch

from peft_core.errors import InvalidInput, PeftDaemonError
from peft_tuning.job import TuneJob

INTERVAL_S = 0.01


class PeakMemory:
    """Measures the peak between ``with`` and its end; ``peak`` may be read meanwhile. Bytes.

    Resident memory is sampled from a thread: the system's own high-water mark cannot be reset everywhere.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._sampled = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def peak(self) -> int:
        """The most so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return max(self._sampled, self._process.memory_info().rss)

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self._sampled = max(self._sampled, self._process.memory_info().rss)


def in_use(device: torch.device) -> int:
    """Bytes held now."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def available(device: torch.device) -> int:
    """Bytes this process could hold in all: what it has and what is free."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on either kind of device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))


# What torch and transformers raise for want of memory or of a tracker, as errors of this project.


class OutOfMemory(PeftDaemonError):
    """The run needs more memory than there is."""

    code, status, exit_code = "out_of_memory", 507, 11


@contextmanager
def translate_failures(job: TuneJob) -> Iterator[None]:
    """Raises OutOfMemory and InvalidInput in the place of their errors; lets all others through."""
    try:
        yield
    except PeftDaemonError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            smaller = max(16, job.batch_tokens // 2)
            raise OutOfMemory(
                "there is not enough memory for this run",
                why=str(error).splitlines()[0] if str(error) else "",
                fix=f"Try `--batch-tokens {smaller}`, `--gradient-checkpointing`, or `--method qlora-4bit`",
            ) from None
        if job.report_to and "installed" in str(error):
            raise InvalidInput(
                f"cannot report to {', '.join(job.report_to)}",
                why=str(error).splitlines()[0],
                fix="Install it, or leave `--report-to` out",
            ) from None
        raise
