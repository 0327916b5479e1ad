"""A whole run on a repository's commits: an adapter for next edits, judged, registered and in use there."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.api_types import Task
from peft_daemon.next_edit.formats import DEFAULT
from peft_tuning.data.edits.history import edits_data_set
from peft_tuning.events import AdapterRegistered, GateVerdict, TuneEvent
from peft_tuning.job import TuneJob
from peft_tuning.learned import examples_seen, is_seen
from peft_tuning.methods.base import MethodOptions
from peft_tuning.run import TuneRequest, run
from support.edited_repository import edited_repository
from support.tiny_installation import tiny_installation
from support.tiny_served import tiny_gguf

pytestmark = pytest.mark.torch

CONTROL = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>", "<|endoftext|>")


def test_an_adapter_of_a_history_serves_next_edits_there(tmp_path: Path) -> None:
    installation = tiny_installation(tmp_path)
    installation.paths.cache.mkdir(parents=True)
    tiny_gguf(installation.paths.cache, context=4096, control=CONTROL)
    repository = edited_repository(tmp_path / "shop", 24)
    data = edits_data_set([(repository, "")], name="shop-edits", seed=1, max_examples=200)
    job = TuneJob(
        method="lora",
        options=MethodOptions(rank=4),
        epochs=6,
        batch_size=2,
        learning_rate=2e-2,
        threads=1,
        validation_limit=4,
        evaluations_per_epoch=1,
    )
    told: list[TuneEvent] = []
    request = TuneRequest(
        name="shop-edits", job=job, load_data=lambda _tell: data, repository=repository, gate_holes=24
    )
    run(request, installation, told.append)
    (verdict,) = [each for each in told if isinstance(each, GateVerdict)]
    assert (verdict.task, verdict.context, verdict.general_served.holes) == ("edit", 0, 0)
    assert "held-out moments of commits" in verdict.reason
    last = told[-1]
    assert isinstance(last, AdapterRegistered)
    assert (last.in_use, last.why_not) == (("edit",), "")
    chosen = installation.registry.resolve(Task.EDIT, str(repository))
    assert chosen is not None
    assert (chosen.digest, chosen.tasks, chosen.prompt_format) == (last.digest, (Task.EDIT,), DEFAULT.id)
    assert installation.registry.resolve(Task.FILL, str(repository)) is None
    assert installation.registry.resolve(Task.EDIT) is None, "nowhere else"
    seen = examples_seen(installation.paths, last.digest)
    assert all(is_seen(each, seen) for each in data.train) and not any(is_seen(each, seen) for each in data.test)
