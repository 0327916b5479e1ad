"""What can go wrong in a run is told plainly, and leaves no adapter; what stops it early keeps the best one."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from rich.console import Console
from transformers import TrainerCallback

from peft_cli.progress_view import JsonLines, TuningView
from peft_core.errors import Conflict, InvalidInput
from peft_tuning import reporting, trainer
from peft_tuning.checkpoints import CheckpointStore, TrainingState
from peft_tuning.data.examples import DataSet, IntentExample
from peft_tuning.events import CheckpointSaved, TrainingEvent, ignore
from peft_tuning.job import TuneJob
from peft_tuning.methods.base import MethodOptions
from peft_tuning.prepare import prepare
from peft_tuning.resources import OutOfMemory, make_plan
from peft_tuning.trainer import TrainingDiverged, TuneResult, train, tune
from support import tiny_run

pytestmark = pytest.mark.torch


def run(
    folder: Path, job: TuneJob, data: DataSet | None = None, *, family: str = "qwen2", tell: Any = ignore
) -> TuneResult:
    return tune(job, tiny_run.base(family), data or tiny_run.data(), tiny_run.FORMATS, folder=folder, on_progress=tell)


def test_a_loss_that_is_no_number_ends_the_run_with_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trainer.response_loss
    monkeypatch.setattr(trainer, "response_loss", lambda *a, **k: original(*a, **k) * float("nan"))
    with pytest.raises(TrainingDiverged, match=r"loss is not a finite number at step 1.*--learning-rate"):
        run(tmp_path / "run", tiny_run.job())
    assert not (tmp_path / "run/adapter").exists()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ],
)
def test_want_of_memory_names_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(trainer, "response_loss", fail)
    with pytest.raises(OutOfMemory, match=r"--batch-tokens 256.*qlora-4bit"):
        run(tmp_path / "run", tiny_run.job())


def test_nothing_to_train_on_is_refused_with_the_reasons(tmp_path: Path) -> None:
    nothing = replace(tiny_run.data(), train=())
    with pytest.raises(InvalidInput, match="no examples to train on"):
        run(tmp_path / "run", tiny_run.job(), nothing)
    long = replace(nothing, train=(IntentExample(id="1", intent="x", code="y" * 500),) * 3)
    with pytest.raises(InvalidInput, match="3 answer too long; prompts may have 256 tokens, answers 96"):
        run(tmp_path / "run", tiny_run.job(), long)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    short = tiny_run.job(max_steps=1)
    run(tmp_path / "run", short)
    before = tiny_run.adapter_bytes(tmp_path / "run/adapter")
    with pytest.raises(Conflict, match="--resume"):
        run(tmp_path / "run", short)
    assert tiny_run.adapter_bytes(tmp_path / "run/adapter") == before


def test_a_tracker_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="clearml"):
        run(tmp_path / "run", tiny_run.job(report_to=("clearml",)))


def test_a_tracker_gets_the_figures_of_steps_and_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs: list[tuple[int, dict[str, float]]] = []
    calls: list[str] = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            calls.append("begin")

        def on_log(self, _arguments: Any, state: Any, _control: Any, **kwargs: Any) -> None:
            logs.append((state.global_step, kwargs["logs"]))

        def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
            calls.append("end")

    monkeypatch.setattr(reporting, "get_reporting_integration_callbacks", lambda _names: [Tracker])
    result = run(tmp_path / "run", tiny_run.job(max_steps=1, report_to=("tensorboard",)))
    assert calls == ["begin", "end"]
    (step, figures), (_, evaluated), (_, summary) = logs
    assert (step, figures["loss"]) == result.losses[0]
    assert set(figures) == {"loss", "grad_norm", "learning_rate", "epoch"}
    assert evaluated["eval_loss"] == result.best_loss
    assert summary["train_loss"] == figures["loss"]


def test_time_and_memory_of_a_resumed_run_are_those_of_all_its_parts(tmp_path: Path) -> None:
    job, folder = tiny_run.job(), tmp_path / "run"
    saved: list[TrainingState] = []

    def end_after_three(event: TrainingEvent) -> None:
        if isinstance(event, CheckpointSaved):
            found = CheckpointStore(folder / trainer.CHECKPOINTS).latest()
            assert found is not None
            saved.append(found.state())
            if len(saved) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, job, tell=end_after_three)
    assert 0 < saved[0].seconds < saved[1].seconds < saved[2].seconds
    prepared = prepare(job, tiny_run.base(), tiny_run.data(), tiny_run.FORMATS)
    result = train(prepared, folder, ignore, resume=True)
    # The last quarter of the steps alone takes less than the first three.
    assert result.seconds > saved[2].seconds
    assert result.peak_memory_bytes >= saved[2].peak_memory_bytes > 0


def test_patience_ends_a_run_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    # Nothing but noise is learned at this rate: validation gets worse.
    result = run(tmp_path / "run", tiny_run.job(learning_rate=0.3, epochs=4, patience=2))
    losses = dict(result.evaluations)
    assert result.stopped_early
    assert result.best_step == min(losses, key=lambda step: losses[step])
    assert sum(step > result.best_step for step in losses) == 2
    assert result.best_loss == losses[result.best_step]


@pytest.mark.parametrize(
    ("method", "family"), [("prompt", "qwen2"), ("prefix", "llama"), ("lora", "t5"), ("full", "codegen")]
)
def test_every_layout_trains_and_writes_an_adapter(tmp_path: Path, method: str, family: str) -> None:
    job = tiny_run.job(method=method, options=MethodOptions(), epochs=1, learning_rate=1e-2)
    data = replace(tiny_run.data(), train=tuple(e for e in tiny_run.data().train if isinstance(e, IntentExample)))
    data = replace(data, validation=data.train[:2])
    base, events = tiny_run.base(family), []
    formats = msgspec.structs.replace(tiny_run.FORMATS, intent="instruct-v1")
    result = tune(job, base, data, formats, folder=tmp_path / "run", on_progress=events.append)
    assert result.evaluations[-1][1] < result.evaluations[0][1]
    assert any(result.adapter.glob("*.safetensors"))


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    results = [
        run(tmp_path / str(on), tiny_run.job(max_steps=2, options=MethodOptions(rank=2, gradient_checkpointing=on)))
        for on in (False, True)
    ]
    assert dict(results[1].losses) == pytest.approx(dict(results[0].losses), rel=1e-5)


def test_a_plan_learns_nothing_and_foresees_the_run(tmp_path: Path) -> None:
    results = []
    for planned in (False, True):
        prepared = prepare(tiny_run.job(), tiny_run.base(), tiny_run.data(), tiny_run.FORMATS)
        if planned:
            plan = make_plan(prepared)
            assert (plan.examples, plan.validation_examples, plan.steps, plan.evaluations) == (22, 5, 12, 4)
            assert plan.trainable_parameters == 1856
            assert plan.tokens == sum(map(len, prepared.train.examples))
            assert plan.fits
            assert plan.peak_memory_bytes > 1e8
            assert any("1,856 are trained" in line for line in plan.lines)
        results.append(train(prepared, tmp_path / str(planned), ignore))
    assert tiny_run.adapter_bytes(results[0].adapter) == tiny_run.adapter_bytes(results[1].adapter)


def test_progress_is_told_to_people_and_programs(tmp_path: Path) -> None:
    lines, screen = io.StringIO(), io.StringIO()
    view, events = JsonLines(lines), []

    with TuningView(Console(file=screen, width=120)) as live:

        def tell(event: TrainingEvent) -> None:
            events.append(event)
            view(event)
            live(event)

        run(tmp_path / "run", tiny_run.job(epochs=1), tell=tell)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [each["type"] for each in told] == [
        "started", "step", "step", "step", "evaluated", "saved", "step", "step", "step", "evaluated", "saved", "done"
    ]  # fmt: skip
    steps = [each for each in told if each["type"] == "step"]
    assert [each["step"] for each in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["eta_s"] == 0
    assert all(each["tokens_per_s"] > 0 and each["memory_bytes"] > 1e8 for each in steps)
    assert [each["epoch"] for each in steps][-1] == 1.0
    assert "validation loss" in screen.getvalue()
    assert "6 steps in" in screen.getvalue()
