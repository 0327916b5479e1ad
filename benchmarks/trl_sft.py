"""A repository's documents learned here and with TRL's SFTTrainer: tokens per second and memory, same model and data.

    pip install trl==1.16.0
    python benchmarks/trl_sft.py CLONE [--steps 8] [--threads 2] [--json]

Both train a LoRA adapter of rank 8 on the layers that `tune` takes, in the number type that it chooses for this
processor, on the documents that `tune --repo` would learn first, each in a process of its own:

- TRL: packing on (rows of 1,024 tokens, one per step), no gradient checkpointing, its loss on all tokens;
- ours: two documents per step, packed, a loss on up to 192 tokens of each.

Tokens are those of the documents, without padding. The first two steps are not counted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from tuning import Arm, Clock, in_processes, ours, tell, ticks

RANK = 8
ROW = 1024
UNCOUNTED = 2


def prepare(options: argparse.Namespace) -> Any:
    """Return the run that `tune --repo` makes with new weights."""
    from peft_core.paths import Paths
    from peft_core.settings import resolve
    from peft_daemon.engines.torch.base_model import load_model
    from peft_tuning import methods, prepare
    from peft_tuning.data.repository.documents import learning_data_set
    from peft_tuning.installation import Installation
    from peft_tuning.job import TuneJob, short_run
    from peft_tuning.methods.base import MethodOptions

    paths = Paths.from_environment()
    installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
    data = learning_data_set(options.repository, seed=42, max_documents=8 * options.steps)
    base = load_model(installation.base.path, methods.get("lora").precision_on("cpu"))
    job = TuneJob(
        method="lora",
        options=MethodOptions(rank=RANK, dropout=0.0),
        threads=options.threads,
        **{**short_run("lora"), "max_steps": options.steps},
    )
    return prepare.prepare(job, base, data, installation.entry.prompt_formats)


def with_trl(options: argparse.Namespace) -> Arm:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from peft_tuning.resources import PeakMemory

    prepared, clock = prepare(options), Clock()
    losses: list[float] = []
    rows = Dataset.from_list([{"input_ids": [*each.prompt, *each.response]} for each in prepared.train.examples])

    with tempfile.TemporaryDirectory() as folder, PeakMemory(torch.device("cpu")) as peak:
        arguments = SFTConfig(
            output_dir=folder,
            packing=True,
            max_length=ROW,
            per_device_train_batch_size=1,
            max_steps=options.steps,
            learning_rate=prepared.job.learning_rate,
            optim="adafactor",
            gradient_checkpointing=False,
            bf16=False,  # the weights are in it already
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SFTTrainer(
            model=prepared.model,
            args=arguments,
            train_dataset=rows,
            processing_class=_tokenizer(),
            callbacks=[ticks(clock, losses)],
        )
        trainer.train()
        tokens = [len(row["input_ids"]) for row in trainer.train_dataset]
    return clock.arm(tokens[: len(clock.wall)], peak.peak, losses, uncounted=UNCOUNTED)


def _tokenizer() -> Any:
    from peft_core.paths import Paths
    from peft_core.settings import resolve
    from peft_daemon.engines.torch.base_model import Precision, load_model
    from peft_tuning.installation import Installation

    paths = Paths.from_environment()
    installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
    return load_model(installation.base.path, Precision.BFLOAT16).tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", choices=("trl", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        tell(ours(prepare(options), uncounted=UNCOUNTED) if options.arm == "ours" else with_trl(options))
        return
    arms = in_processes(__file__, "trl", "ours")
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(arms), indent=2).decode())
        return
    for name, arm in arms.items():
        speeds = f"{arm.tokens_per_s:7.1f} tokens/s {arm.tokens_per_cpu_s:7.1f} by CPU time"
        print(f"{name:5} {speeds} {arm.peak_memory_mb:7.0f} MB")
    print(f"speed x{arms['ours'].tokens_per_s / arms['trl'].tokens_per_s:.2f}")


if __name__ == "__main__":
    main()
