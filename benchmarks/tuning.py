"""Tuning against a plain `Trainer` + peft script: tokens per second and peak memory, on the real model and data.

    python benchmarks/tuning.py --data FOLDER [--steps 6] [--threads 2] [--format instruct-v1] [--json]

Both arms train the same LoRA on the same de-quantized base, on the same batches of Conala, in a process of their own:

- plain: the study's script (arXiv 2308.10462): every example padded to 64 tokens of prompt and 64 of answer (and to the
  prompt format's own text, should that be longer), one batch of 8 per step, logits and loss by the model;
- ours: `peft_tuning.trainer`.

Tokens are those of prompts and answers, without padding. The first step is not counted. ``cpu`` figures divide by
processor time instead of wall time: use them when the machine is busy. FOLDER defaults to PEFT_DAEMON_DATA.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec


class Arm(msgspec.Struct, frozen=True):
    """One way to train."""

    tokens_per_s: float
    tokens_per_cpu_s: float
    peak_memory_mb: float
    loss: float
    """Mean training loss over the steps."""
    step_s: list[float]


class Result(msgspec.Struct, frozen=True):
    """Both, and ours by theirs."""

    plain: Arm
    ours: Arm
    speed_ratio: float
    speed_ratio_cpu: float
    memory_ratio: float


class Clock:
    """Wall and processor time at the end of each step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def tick(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def arm(self, tokens: list[int], peak: int, losses: list[float], *, uncounted: int = 1) -> Arm:
        """``tokens`` are those of each step, of which the first ``uncounted`` do not count."""
        counted = sum(tokens[uncounted:])
        wall, cpu = self.wall[uncounted - 1 :], self.cpu[uncounted - 1 :]
        steps = [later - earlier for earlier, later in pairwise(wall)]
        return Arm(
            counted / sum(steps),
            counted / (cpu[-1] - cpu[0]),
            peak / 1e6,
            sum(losses) / len(losses),
            [round(each, 2) for each in steps],
        )


def prepare(options: argparse.Namespace) -> Any:
    from peft_core.paths import Paths
    from peft_core.settings import resolve
    from peft_daemon.engines.torch.base_model import Precision, load_gguf
    from peft_daemon.models import catalogue
    from peft_daemon.models.catalogue import PromptFormats
    from peft_daemon.models.store import open_store
    from peft_tuning import prepare
    from peft_tuning.data.datasets import catalogue as datasets
    from peft_tuning.data.datasets.sources import DataLocations
    from peft_tuning.job import TuneJob

    settings, paths = resolve().settings, Paths.from_environment()
    entry = catalogue.get(settings.model)
    data = replace(datasets.load("conala", DataLocations.resolve(settings, paths, data=options.data)), validation=())
    base = load_gguf(open_store(settings, paths).path(entry), Precision.FLOAT32)
    job = TuneJob(method="lora", threads=options.threads, max_steps=options.steps)
    formats = PromptFormats(fill=entry.prompt_formats.fill, intent=options.format)
    return prepare.prepare(job, base, data, formats)


def ours(prepared: Any, *, uncounted: int = 1) -> Arm:
    from peft_tuning import events, trainer

    clock, losses = Clock(), []

    def tell(event: events.TrainingEvent) -> None:
        if isinstance(event, events.StepFinished):
            clock.tick()
            losses.append(event.loss)

    with tempfile.TemporaryDirectory() as folder:
        result = trainer.train(prepared, Path(folder, "run"), tell)
    return clock.arm(list(prepared.schedule.tokens), result.peak_memory_bytes, losses, uncounted=uncounted)


def ticks(clock: Clock, losses: list[float]) -> Any:
    """A callback of transformers' trainers that notes the time and the loss of each step."""
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        def on_step_end(self, *_args: object, **_kwargs: object) -> None:
            clock.tick()

        def on_log(self, *_args: object, **given: Any) -> None:
            if "loss" in given["logs"]:
                losses.append(given["logs"]["loss"])

    return Ticks()


def plain(options: argparse.Namespace) -> Arm:
    import torch
    from transformers import Trainer, TrainingArguments

    from peft_tuning.resources import PeakMemory

    prepared, clock = prepare(options), Clock()
    losses: list[float] = []
    examples = prepared.train.examples
    longest = max(128, *(len(each) for each in examples))

    def row(each: Any) -> dict[str, list[int]]:
        ids, padding = [*each.prompt, *each.response], longest - len(each)
        return {
            "input_ids": [*ids, *[0] * padding],
            "attention_mask": [*[1] * len(ids), *[0] * padding],
            "labels": [*[-100] * len(each.prompt), *each.response, *[-100] * padding],
        }

    rows = [row(examples[index]) for batch in prepared.schedule.batches for index in batch]

    class InOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    with tempfile.TemporaryDirectory() as folder, PeakMemory(torch.device("cpu")) as peak:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=8,
            max_steps=options.steps,
            learning_rate=3e-4,
            lr_scheduler_type="linear",
            warmup_steps=options.steps // 20,
            optim="adafactor",
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        InOrder(model=prepared.model, args=arguments, train_dataset=rows, callbacks=[ticks(clock, losses)]).train()
    return clock.arm(list(prepared.schedule.tokens), peak.peak, losses)


def tell(arm: Arm) -> None:
    """Tell the process that compares how this one went."""
    sys.stdout.write("ARM " + msgspec.json.encode(arm).decode() + "\n")


def in_processes(script: str, *names: str) -> dict[str, Arm]:
    """Run a script with its own options and ``--arm``, in a process of its own for each name."""
    arms = {}
    for name in names:
        command = [sys.executable, script, *sys.argv[1:], "--arm", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        line = next(line for line in output.splitlines() if line.startswith("ARM "))
        arms[name] = msgspec.json.decode(line[4:], type=Arm)
        sys.stderr.write(f"{name}: {line[4:]}\n")
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PEFT_DAEMON_DATA"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--format", default="instruct-v1", help="prompt format; the default is the study's")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", choices=("plain", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        tell(ours(prepare(options)) if options.arm == "ours" else plain(options))
        return
    arms = in_processes(__file__, "plain", "ours")
    theirs, own = arms["plain"], arms["ours"]
    result = Result(
        theirs,
        own,
        own.tokens_per_s / theirs.tokens_per_s,
        own.tokens_per_cpu_s / theirs.tokens_per_cpu_s,
        own.peak_memory_mb / theirs.peak_memory_mb,
    )
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
        return
    for name, arm in arms.items():
        print(f"{name:6} {arm.tokens_per_s:7.1f} tokens/s {arm.peak_memory_mb:8.0f} MB  loss {arm.loss:.3f}")
    print(f"speed x{result.speed_ratio:.2f} (by CPU time x{result.speed_ratio_cpu:.2f})")
    print(f"memory x{result.memory_ratio:.2f}")


if __name__ == "__main__":
    main()
