"""Time and memory of a run: a plan before it begins, peak memory meanwhile, and errors if memory is too small.

A plan follows from the schedule and from three measured steps: the smallest, the middle one and the largest of the run,
with forward passes, gradients and an optimizer step of rate 0, so nothing is learned. The largest gives the peak of
memory; the time of all others is interpolated. Other load on the machine is not considered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import msgspec
import numpy as np
import psutil
import torch
from transformers.optimization import Adafactor

from peft_core.errors import InvalidInput, PeftDaemonError
from peft_tuning.batch import response_loss
from peft_tuning.encode import EncodedExample
from peft_tuning.events import duration
from peft_tuning.job import TuneJob
from peft_tuning.prepare import MeasuredRun, PreparedRun

MAX_MEMORY_SHARE = 0.95
"""A plan that needs a larger share of the available memory does not fit."""
MEMORY_SAMPLE_INTERVAL_S = 0.01


class TuningPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The expected time and memory of a run."""

    examples: int
    validation_examples: int
    tokens: int
    """Tokens of all training examples, prompts and answers."""
    cut_percent: float
    """Percentage of training prompts that show only a part of their document."""
    dropped: dict[str, int]
    """Training examples left out, by reason."""
    trainable_parameters: int
    steps: int
    evaluations: int
    peak_memory_bytes: int
    available_bytes: int
    seconds: float
    """Time of training and evaluations."""
    fits: bool

    @property
    def lines(self) -> tuple[str, ...]:
        """The plan as lines of text."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.dropped.items()))
        memory = f"{self.peak_memory_bytes / 1e9:.1f} GB at the peak, {self.available_bytes / 1e9:.1f} GB available"
        return (
            f"examples    {self.examples:,} to train on, {self.validation_examples:,} to choose the best by",
            f"tokens      {self.tokens:,}; {self.cut_percent:.1f} % of the prompts are cut",
            *((f"left out    {reasons}",) if reasons else ()),
            f"parameters  {self.trainable_parameters:,} are trained",
            f"steps       {self.steps:,}, with {self.evaluations:,} evaluations",
            f"memory      {memory}" + ("" if self.fits else ": this will not fit"),
            f"time        {duration(self.seconds)}",
        )


def make_plan(prepared: PreparedRun) -> TuningPlan:
    """Make a plan in about the time of four steps, or of none if they were measured; raises OutOfMemory."""
    examples, schedule = prepared.train.examples, prepared.schedule
    measured = prepared.measured or _measured(prepared)
    room = available_bytes(prepared.device)
    return TuningPlan(
        examples=len(examples),
        validation_examples=len(prepared.validation.examples),
        tokens=prepared.train.tokens,
        cut_percent=100 * prepared.train.cut / len(examples),
        dropped=prepared.train.dropped,
        trainable_parameters=prepared.method.trainable_parameters(prepared.model),
        steps=schedule.steps,
        evaluations=len(schedule.evaluations) if prepared.validation.examples else 0,
        peak_memory_bytes=measured.peak_memory_bytes,
        available_bytes=room,
        seconds=measured.seconds,
        fits=measured.peak_memory_bytes <= MAX_MEMORY_SHARE * room,
    )


def _measured(prepared: PreparedRun) -> MeasuredRun:
    examples, schedule = prepared.train.examples, prepared.schedule
    batches = [[examples[index] for index in batch] for batch in schedule.batches]
    widths = [sum(micro_batch.width for micro_batch in prepared.collator.split(batch)) for batch in batches]
    order = sorted(range(len(widths)), key=widths.__getitem__)
    chosen = [order[0], order[len(order) // 2], order[-1]]
    with translate_failures(prepared.job), PeakMemory(prepared.device) as peak:
        timer = StepTimer(prepared)
        timer.step(batches[order[0]])  # the first pass of a process is slower than all others
        seconds = [timer.step(batches[index]) for index in chosen]
        evaluation_s = timer.evaluation(prepared.validation.examples)
    evaluations = len(schedule.evaluations) if prepared.validation.examples else 0
    training_s = float(np.interp(widths, [widths[index] for index in chosen], seconds).sum())
    return MeasuredRun((training_s + evaluations * evaluation_s) / prepared.identity.processes, peak.peak)


class StepTimer:
    """Time steps of a prepared run without changing it."""

    def __init__(self, prepared: PreparedRun) -> None:
        self._prepared = prepared
        self._trained = [each for each in prepared.model.parameters() if each.requires_grad]
        self._optimizer = Adafactor(self._trained, lr=0.0, scale_parameter=False, relative_step=False)  # type: ignore[no-untyped-call]

    def step(self, batch: Sequence[EncodedExample]) -> float:
        """Take one optimizer step and return its seconds."""
        model, collator = self._prepared.model, self._prepared.collator
        model.train()
        began = time.perf_counter()
        for micro_batch in collator.split(batch):
            response_loss(model, collator.tensors(micro_batch)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()
        self._wait()
        return time.perf_counter() - began

    def evaluation(self, examples: Sequence[EncodedExample]) -> float:
        """Return the seconds of one evaluation, from its widest forward pass."""
        model, collator = self._prepared.model, self._prepared.collator
        micro_batches = collator.split(examples)
        if not micro_batches:
            return 0.0
        model.eval()
        began = time.perf_counter()
        with torch.no_grad():
            response_loss(model, collator.tensors(micro_batches[0]))
        self._wait()
        return (
            (time.perf_counter() - began)
            * sum(micro_batch.width for micro_batch in micro_batches)
            / micro_batches[0].width
        )

    def _wait(self) -> None:
        if self._prepared.device.type == "cuda":
            torch.cuda.synchronize(self._prepared.device)


class PeakMemory:
    """Measure the peak of memory in a ``with`` block, in bytes; ``peak`` may be read meanwhile.

    That is CUDA memory on a GPU and resident memory otherwise.

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
        """The highest value so far."""
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
        while not self._over.wait(MEMORY_SAMPLE_INTERVAL_S):
            self._sampled = max(self._sampled, self._process.memory_info().rss)


def available_bytes(device: torch.device) -> int:
    """Return the bytes that this process could use in all: those it has and the free ones."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on either kind of device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))


class OutOfMemory(PeftDaemonError):
    """The run needs more memory than there is."""

    code, status, exit_code = "out_of_memory", 507, 11


@contextmanager
def translate_failures(job: TuneJob) -> Iterator[None]:
    """Raise OutOfMemory and InvalidInput for errors of torch and of missing trackers; let all others through."""
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
