"""Prepare a run: encode the data, put trainable weights on the base, and determine everything that affects the result.

A ``RunIdentity`` records the decisions, so that a run is resumed only as the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from peft_core.errors import InvalidInput
from peft_daemon.engines.torch.base_model import LoadedBase, Precision, load_model
from peft_daemon.models.catalogue import PromptFormats
from peft_tuning import encode, methods
from peft_tuning.batch import BatchLayout, Collator, StepSchedule
from peft_tuning.data.examples import DataSet
from peft_tuning.encode import EncodedExample, EncodedExamples, ExampleTokenizer, TokenLimits
from peft_tuning.job import RunIdentity, TuneJob
from peft_tuning.methods.base import Method
from peft_tuning.start import StartingPoint, load_start

OPTIMIZER = "adafactor"
"""The study's optimizer, in transformers' implementation."""
CALIBRATION_EXAMPLES, CALIBRATION_BATCH = 32, 8


@dataclass(frozen=True)
class MeasuredRun:
    """What a run was measured to take."""

    seconds: float
    """Training and evaluations."""
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that is ready to begin: everything is encoded, ordered and in memory."""

    job: TuneJob
    method: Method
    model: nn.Module
    train: EncodedExamples
    validation: EncodedExamples
    schedule: StepSchedule
    collator: Collator
    identity: RunIdentity
    device: torch.device
    measured: MeasuredRun | None = None
    """Where it was fitted into a time."""

    def examples_of(self, step: int) -> list[EncodedExample]:
        """Return the examples of optimizer step ``step`` (from 0)."""
        return [self.train.examples[index] for index in self.schedule.batches[step]]


def is_main_process() -> bool:
    """Return whether this process writes files and reports progress; other processes of ``torchrun`` only compute."""
    return int(os.environ.get("RANK", "0")) == 0


def load_base(
    path: Path, method: Method, on_precision: Callable[[Precision], None] = lambda _precision: None
) -> LoadedBase:
    """Load a base model on the device that there is, in the precision that ``method`` takes there.

    ``on_precision`` is told before. Raises what ``load_model`` raises.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = method.precision_on(device)
    on_precision(precision)
    return load_model(path, precision, device=device)


def prepare(
    job: TuneJob, base: LoadedBase, data: DataSet, formats: PromptFormats, *, start: StartingPoint | None = None
) -> PreparedRun:
    """Encode the data and put trainable weights on ``base``, which must not be used afterwards.

    The weights are new ones, or those of ``start``, whose rank and alpha the job must have (``with_start``). Sets the
    number of threads and the priority of this process. Raises InvalidInput if nothing is left to train on, if there are
    more processes than examples in a batch, or if the method or the start cannot be used.
    """
    method = methods.get(job.method)
    method.check(base.family, job.options)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    if hasattr(os, "setpriority"):
        now = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, max(now, job.niceness))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > job.batch_size:
        raise InvalidInput(
            f"{processes} processes share batches of {job.batch_size} examples",
            why="each needs at least one",
            fix=f"Start at most {job.batch_size} processes, or raise `--batch-size`",
        )
    limits = _limits(data, base)
    tokens = ExampleTokenizer.of(base)
    chosen = (data.train[: job.limit], data.validation[: job.limit][: job.validation_limit])
    parts = [encode.encode_examples(part, formats, tokens, limits) for part in chosen]
    _require_examples(data, parts[0], limits)
    device = base.model.device
    identity = RunIdentity(
        base_sha256=base.sha256,
        quantization=base.quantization,
        precision=base.precision,
        data_digest=data.digest,
        prompt_formats=encode.format_ids(formats, chosen[0]),
        prompt_tokens=limits.prompt_tokens,
        response_tokens=limits.response_tokens,
        method=method.id,
        options=job.options,
        epochs=job.epochs,
        batch_size=job.batch_size,
        batch_tokens=job.batch_tokens,
        learning_rate=job.learning_rate or method.learning_rate,
        warmup=job.warmup,
        seed=job.seed,
        evaluations_per_epoch=job.evaluations_per_epoch,
        patience=job.patience,
        max_steps=job.max_steps,
        limit=job.limit,
        validation_limit=job.validation_limit,
        threads=torch.get_num_threads(),
        processes=processes,
        device=device.type,
        optimizer=OPTIMIZER,
        start=start.identity if start else "",
    )
    pad, decoder_start = padding_of(base, tokens)
    calibration = _calibration(parts[0], pad, device) if method.needs_calibration(job.options) else None
    model = method.apply(base, job.options, job.seed, calibration=calibration)
    if start is not None:
        load_start(model, start)
    longest = max(map(len, (*parts[0].examples, *parts[1].examples)))
    layout = layout_of(model, base, longest)
    return PreparedRun(
        job=job,
        method=method,
        model=model,
        train=parts[0],
        validation=parts[1],
        schedule=StepSchedule(
            lengths=tuple(map(len, parts[0].examples)),
            batch_size=job.batch_size,
            epochs=job.epochs,
            seed=job.seed,
            grouped=layout is not BatchLayout.PACKED,
            evaluations_per_epoch=job.evaluations_per_epoch,
            max_steps=job.max_steps,
        ),
        collator=Collator(model, layout, job.batch_tokens, pad=pad, decoder_start=decoder_start),
        identity=identity,
        device=device,
    )


def _limits(data: DataSet, base: LoadedBase) -> TokenLimits:
    """Return the data set's limits, cut to the positions of the model."""
    context = getattr(base.model.config, "max_position_embeddings", None)
    if not isinstance(context, int):
        return TokenLimits(prompt_tokens=data.prompt_tokens, response_tokens=data.response_tokens)
    response = min(data.response_tokens, context // 2)
    return TokenLimits(prompt_tokens=min(data.prompt_tokens, context - response), response_tokens=response)


def _require_examples(data: DataSet, part: EncodedExamples, limits: TokenLimits) -> None:
    if part.examples:
        return
    if not data.train:
        raise InvalidInput(f"the data set '{data.name}' has no examples to train on", fix="Choose another `--dataset`")
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(part.dropped.items()))
    raise InvalidInput(
        f"no example of '{data.name}' can be trained on",
        why=f"{reasons}; prompts may have {limits.prompt_tokens} tokens, answers {limits.response_tokens}",
        fix="Choose other data, or a base model with a longer context",
    )


def layout_of(model: nn.Module, base: LoadedBase, longest: int) -> BatchLayout:
    """Return the packed layout if it is exact for this model; see ``batch``."""
    if base.family.encoder_decoder:
        return BatchLayout.ENCODER_DECODER
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return BatchLayout.PADDED
    window = getattr(base.model.config, "sliding_window", None)
    return BatchLayout.PADDED if window is not None and longest > window else BatchLayout.PACKED


def padding_of(base: LoadedBase, tokens: ExampleTokenizer) -> tuple[int, int]:
    """Return the token ids that fill padding and begin a decoder's input."""
    pad = base.tokenizer.pad_token_id
    pad = pad if isinstance(pad, int) else tokens.end_of_sequence
    start = base.decoder_start
    return pad, pad if start is None else start


def _calibration(part: EncodedExamples, pad: int, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Return a few batches of the training part, for initializations that use data."""
    few = [torch.tensor([*each.prompt, *each.response]) for each in part.examples[:CALIBRATION_EXAMPLES]]
    batches = []
    for start in range(0, len(few), CALIBRATION_BATCH):
        rows = few[start : start + CALIBRATION_BATCH]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        ones = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        batches.append({"input_ids": ids.to(device), "attention_mask": ones.to(device)})
    return batches
