"""Runs of tuning in processes of their own, some of which end by signal at a chosen moment.

    python tuning_host.py moments FOLDER    every moment of ``MOMENTS``; prints a JSON object per run
    python tuning_host.py run FOLDER        one run, as `torchrun` starts it; rank 0 prints its losses

Torch is imported once; each run is a fork of this process, with one thread.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_core import files
from peft_core.errors import Cancelled
from peft_tuning import checkpoints, methods, trainer
from peft_tuning.events import ignore
from peft_tuning.job import TuneJob
from peft_tuning.methods.base import MethodOptions
from peft_tuning.trainer import tune
from support import tiny_run

CANCELLED = 130


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def at_call(module: Any, name: str, call: int, before: Callable[[Any], None]) -> None:
    """Do ``before`` (given the first argument) when ``module.name`` is called for the nth time."""
    original, calls = getattr(module, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            before(args[0])
        return original(*args, **kwargs)

    setattr(module, name, counted)


def in_step(step: int, number: int) -> None:
    """Inside the step of that number (from 1), at its first row."""
    original = trainer.Optimization.step

    def take(self: trainer.Optimization, done: int) -> trainer.StepFigures:
        if done + 1 == step:
            at_call(trainer, "response_loss", 1, lambda _model: die(number))
        return original(self, done)

    trainer.Optimization.step = take  # type: ignore[method-assign]


def in_evaluation(which: int, number: int) -> None:
    """Inside the nth evaluation, at its first row."""
    original, seen = trainer.Optimization.validation_loss, 0

    def evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == which:
            at_call(trainer, "response_loss", 1, lambda _model: die(number))
        return original(self, *args, **kwargs)

    trainer.Optimization.validation_loss = evaluate  # type: ignore[method-assign]


def in_save(which: int) -> None:
    """Halfway through a file of the nth checkpoint."""
    original, seen = Path.write_bytes, 0

    def write(path: Path, content: bytes) -> int:
        nonlocal seen
        seen += path.name == checkpoints.SCHEDULER
        if seen == which:
            original(path, content[:100])
            die(signal.SIGKILL)
        return original(path, content)

    Path.write_bytes = write  # type: ignore[assignment,method-assign]


def before_publish(which: int) -> None:
    """All files are written, the folder has not its name yet; counts best weights as well."""
    at_call(files, "publish_folder", which, lambda _staged: die(signal.SIGKILL))


def before_adapter() -> None:
    """Training is over, the adapter not yet written."""
    kind = type(methods.get("lora"))
    original = kind.save

    def save(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        die(signal.SIGKILL)

    kind.save = save  # type: ignore[method-assign]


MOMENTS: dict[str, list[Callable[[], None]]] = {
    "kill before the first checkpoint": [lambda: in_step(2, signal.SIGKILL)],
    "kill in a step": [lambda: in_step(8, signal.SIGKILL)],
    "kill in an evaluation": [lambda: in_evaluation(2, signal.SIGKILL)],
    "kill in a save": [lambda: in_save(2)],
    "kill before the best weights have their name": [lambda: before_publish(3)],
    "kill before the checkpoint has its name": [lambda: before_publish(4)],
    "kill before the adapter": [before_adapter],
    "terminate in the step before an evaluation": [lambda: in_step(6, signal.SIGTERM)],
    "interrupt in the last evaluation": [lambda: in_evaluation(4, signal.SIGINT)],
    "interrupted three times": [
        lambda: in_step(2, signal.SIGTERM),
        lambda: in_evaluation(1, signal.SIGKILL),
        lambda: in_step(5, signal.SIGKILL),
    ],
}


def forked(work: Callable[[], None]) -> int:
    """Exit code of ``work`` in a process of its own; negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except Cancelled:
            code = CANCELLED
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder: Path, job: TuneJob, *, resume: bool = False) -> None:
    result = tune(
        job, tiny_run.base(), tiny_run.data(), tiny_run.FORMATS, folder=folder, on_progress=ignore, resume=resume
    )
    if int(os.environ.get("RANK", "0")) == 0:
        told = {"losses": result.losses, "evaluations": result.evaluations, "best_step": result.best_step}
        (folder / "told.json").write_text(json.dumps(told))


def moments(folder: Path) -> None:
    # Here and not in a fork: what transformers imports on the way is then there for all.
    run(folder / "nothing", tiny_run.job())
    tell("nothing", folder / "nothing", [0])
    gc.freeze()  # a fork need not look through all of torch again
    for name, ends in MOMENTS.items():
        where = folder / name.replace(" ", "-")
        codes = []
        for attempt, end in enumerate([*ends, lambda: None]):

            def work(end: Callable[[], None] = end, attempt: int = attempt, where: Path = where) -> None:
                end()
                run(where, tiny_run.job(), resume=attempt > 0)

            codes.append(forked(work))
        tell(name, where, codes)


def tell(name: str, where: Path, codes: list[int]) -> None:
    told = json.loads((where / "told.json").read_text()) if (where / "told.json").exists() else None
    print(json.dumps({"name": name, "folder": str(where), "codes": codes, "told": told}), flush=True)


if __name__ == "__main__":
    verb, target = sys.argv[1], Path(sys.argv[2])
    if verb == "moments":
        moments(target)
    else:
        options = MethodOptions(rank=2, dropout=0.0)
        run(target, tiny_run.job(options=options, batch_size=3))
