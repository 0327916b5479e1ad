"""The default model, tuned for a few steps: the plan's memory is the run's, the loss falls, the adapter is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_daemon.engines.torch.base_model import Precision, load_gguf
from peft_daemon.models import catalogue
from peft_tuning.data.examples import DataSet, FillExample, IntentExample
from peft_tuning.events import ignore
from peft_tuning.job import TuneJob
from peft_tuning.prepare import prepare
from peft_tuning.resources import make_plan
from peft_tuning.trainer import train

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(900)]

TASKS = (
    ("sort list `values` in descending order", "values.sort(reverse=True)"),
    ("join list `words` with commas", "','.join(words)"),
    ("open file `path` and read its lines", "with open(path) as file:\n    lines = file.readlines()"),
)
HOLE = FillExample(id="fill", prefix="def area(width, height):\n    return wid", suffix="\n", middle="th * height")


@pytest.mark.long
def test_a_short_run_on_the_real_model_is_planned_and_learns(model_file: Path, tmp_path: Path) -> None:
    entry = catalogue.entries()[0]
    examples = tuple(IntentExample(id=str(at), intent=intent, code=code) for at, (intent, code) in enumerate(TASKS))
    data = DataSet(name="few", train=(examples[0], HOLE), validation=examples[:1], prompt_tokens=64, response_tokens=64)
    job = TuneJob(method="lora", batch_size=2, epochs=2, evaluations_per_epoch=1, learning_rate=2e-3)
    base = load_gguf(model_file, Precision.FLOAT32)
    prepared = prepare(job, base, data, entry.prompt_formats)
    (hole,) = (
        each
        for each in prepared.train.examples
        if each.prompt[0] == base.tokenizer.convert_tokens_to_ids("<|fim_prefix|>")
    )
    assert base.tokenizer.decode(list(hole.response)) == " width * height<|endoftext|>"
    plan = make_plan(prepared)
    result = train(prepared, tmp_path / "run", ignore)
    assert plan.fits
    assert plan.peak_memory_bytes == pytest.approx(result.peak_memory_bytes, rel=0.15)
    assert result.evaluations[-1][1] < result.evaluations[0][1] < 3.0
    assert (result.adapter / "adapter_model.safetensors").stat().st_size > 4 * result.trainable_parameters
