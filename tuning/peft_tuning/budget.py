"""Fit a run into a time: a few steps are measured, then the most important examples that fit are kept.

The order of the examples is their importance (see ``data.repository.documents``): a budget takes a beginning of it.
Where all of them fit, they are seen again, up to ``MAX_EPOCHS`` times. Number of examples and epochs become part of the
run's identity, so an interrupted run continues with the steps that it began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import torch

from peft_core.errors import InvalidInput
from peft_tuning.encode import EncodedExamples
from peft_tuning.job import RunIdentity, TuneJob
from peft_tuning.prepare import MeasuredRun, PreparedRun
from peft_tuning.resources import PeakMemory, StepTimer, translate_failures

GATE_SHARE = 0.25
"""Part of a budget that is left for judging the adapter."""
MAX_EPOCHS = 3
"""More passes over a repository teach it by heart."""
MIN_STEPS = 2
MEASURED_STEPS = 2
"""Measured after a first one, which is slower than all others."""
MAX_DOCUMENTS, MIN_DOCUMENTS = 20_000, 100
DOCUMENTS_PER_S = 1.0
"""Several times what a CPU learns in a second."""
LEFT_OUT = "did not fit into the time, the next run learns on"


def most_documents(seconds: float | None) -> int:
    """Return how many documents of a repository are worth cutting for a run: more than can be learned in the time."""
    if seconds is None or torch.cuda.is_available():
        return MAX_DOCUMENTS
    return min(MAX_DOCUMENTS, max(MIN_DOCUMENTS, int(seconds * DOCUMENTS_PER_S)))


def fit(prepared: PreparedRun, seconds: float) -> PreparedRun:
    """Return the run with as many examples and epochs as training takes ``seconds`` for; measures three steps.

    Raises OutOfMemory, and InvalidInput where the time is too short for ``MIN_STEPS``, or with several processes, each
    of which would measure another time.
    """
    if prepared.identity.processes > 1:
        raise InvalidInput(
            f"{prepared.identity.processes} processes cannot share a time",
            why="each measures its own steps",
            fix="Give `--epochs` or `--max-steps` in place of a time",
        )
    examples, size = prepared.train.examples, prepared.job.batch_size
    with translate_failures(prepared.job), PeakMemory(prepared.device) as peak:
        timer = StepTimer(prepared)
        timer.step(examples[:size])
        measured = [examples[at * size : (at + 1) * size] or examples[:size] for at in range(1, MEASURED_STEPS + 1)]
        per_token = sum(map(timer.step, measured)) / sum(len(each) for batch in measured for each in batch)
        evaluation = timer.evaluation(prepared.validation.examples)
    kept = _kept([len(each) * per_token for each in examples], seconds - evaluation)
    if kept < min(len(examples), MIN_STEPS * size):
        needed = sum(len(each) for each in examples[: MIN_STEPS * size]) * per_token + evaluation
        raise InvalidInput(
            f"{seconds:.0f} seconds are too few to learn anything in",
            why=f"{MIN_STEPS} steps and their evaluation take {needed:.0f} on this machine",
            fix=f"Give more time: `--budget {max(1, round(needed / (1 - GATE_SHARE) / 60) + 1)}m`",
        )
    whole = sum(map(len, examples)) * per_token + evaluation
    epochs = 1 if kept < len(examples) else max(1, min(MAX_EPOCHS, int(seconds // whole)))
    left = len(examples) - kept
    train = EncodedExamples(
        examples[:kept], prepared.train.rows[:kept], {**prepared.train.dropped, **({LEFT_OUT: left} if left else {})}
    )
    job = _limited(prepared.job, train.rows[-1] + 1, epochs)
    return replace(
        prepared,
        job=job,
        train=train,
        schedule=replace(prepared.schedule, lengths=tuple(map(len, train.examples)), epochs=epochs),
        identity=msgspec.structs.replace(prepared.identity, limit=job.limit, epochs=epochs),
        measured=MeasuredRun(epochs * (sum(map(len, train.examples)) * per_token + evaluation), peak.peak),
    )


def as_begun(job: TuneJob, begun: RunIdentity) -> TuneJob:
    """Return the job with the examples and epochs of the run that it resumes."""
    return job if begun.limit is None else _limited(job, begun.limit, begun.epochs)


def _limited(job: TuneJob, limit: int, epochs: int) -> TuneJob:
    return msgspec.structs.replace(job, limit=limit, epochs=epochs)


def _kept(seconds_of: Sequence[float], seconds: float) -> int:
    total = 0.0
    for number, each in enumerate(seconds_of):
        total += each
        if total > seconds:
            return number
    return len(seconds_of)
