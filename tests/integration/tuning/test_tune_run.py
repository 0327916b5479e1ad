"""A whole run on a tiny base: what each method leaves in the registry, in use, and on the disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peft_core.api_types import Task
from peft_core.errors import Conflict
from peft_core.settings import Settings
from peft_tuning.data.examples import DataSet, FillExample, IntentExample
from peft_tuning.events import AdapterRegistered, DataLoaded, GateVerdict, ModelWritten, TuneEvent
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob
from peft_tuning.methods.base import MethodOptions
from peft_tuning.run import TuneRequest, run
from support.tiny_installation import tiny_installation
from support.tiny_served import tiny_gguf

pytestmark = pytest.mark.torch

ROWS = tuple(IntentExample(id=str(n), intent=f"add {n}", code=f"x+{n}") for n in range(40))
DATA = DataSet(name="sums", train=ROWS[:24], validation=ROWS[24:28], test=ROWS[28:], licence="MIT")


QWEN_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = tiny_installation(tmp_path)
    made.paths.cache.mkdir(parents=True)
    tiny_gguf(made.paths.cache, context=1024, control=(*QWEN_FIM, "<|endoftext|>"))
    return made


def request(method: str, **changes: object) -> TuneRequest:
    """A run that learns enough to win, unless the settings of its ``job`` say otherwise."""
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 3, "threads": 1, "learning_rate": 2e-2}
    job = TuneJob(method=method, **(settings | changes.pop("job", {})))  # type: ignore[operator]
    return TuneRequest(name="sums", job=job, load_data=lambda _tell: DATA, **changes)  # type: ignore[arg-type]


LITTLE = {"max_steps": 1, "learning_rate": 1e-7}
"""Of a job that learns nothing."""


def events(asked: TuneRequest, installation: Installation) -> list[TuneEvent]:
    told: list[TuneEvent] = []
    run(asked, installation, told.append)
    return told


def test_a_lora_is_registered_and_in_use(installation: Installation) -> None:
    last = events(request("lora"), installation)[-1]
    assert isinstance(last, AdapterRegistered)
    assert (last.in_use, last.why_not) == (("intent",), "")
    chosen = installation.registry.resolve(Task.INTENT)
    assert chosen is not None
    assert (chosen.digest, chosen.licence, chosen.prompt_format) == (last.digest, "MIT", "instruct-v1")
    assert installation.registry.resolve(Task.FILL) is None
    assert {path.name for path in Path(last.folder).iterdir()} == {
        *("README.md", "loss.svg", "adapter", "run.json", "outcome.json")
    }
    assert chosen.metrics["train_examples"] == 24
    assert (chosen.metrics["gate_holes"], "general_nats" in chosen.metrics) == (12, False)
    card = Path(last.folder, "README.md").read_text(encoding="utf-8")
    assert "Yes: better on 12 held-out sentences" in card and "General code" not in card
    config = json.loads(Path(last.folder, "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == installation.entry.hub_name != "", "other tools find the base"


def unregistered(installation: Installation, last: AdapterRegistered) -> Path:
    """Make it a run that was killed when all was judged and described, and nothing registered; returns its folder."""
    shutil.rmtree(installation.paths.adapters)
    folder = Path(last.folder)
    outcome = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps({**outcome, "registered": None}))
    return folder


def test_a_run_that_was_killed_while_it_registered_its_adapter_registers_it_when_it_is_resumed(
    installation: Installation,
) -> None:
    told = events(request("lora"), installation)
    unregistered(installation, told[-1])
    concluded = [each for each in told if isinstance(each, GateVerdict | AdapterRegistered)]
    assert events(request("lora", resume=True), installation) == concluded, "nothing is trained or judged again"
    assert installation.registry.get("sums").digest == told[-1].digest
    assert installation.registry.resolve(Task.INTENT) is not None
    installation.registry.use("base", Task.INTENT)
    assert events(request("lora", resume=True), installation) == concluded
    assert installation.registry.resolve(Task.INTENT) is None, "what the user chose since then stays"


def test_an_adapter_that_was_damaged_before_it_was_registered_is_made_again(installation: Installation) -> None:
    told = events(request("lora"), installation)
    weights = unregistered(installation, told[-1]) / "adapter/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    again = events(request("lora", resume=True), installation)
    assert again[-1] == told[-1]
    assert len(again) > 1 and installation.registry.get("sums").digest == told[-1].digest


def verdicts(told: list[TuneEvent]) -> dict[str, GateVerdict]:
    return {each.task: each for each in told if isinstance(each, GateVerdict)}


def test_what_is_no_better_than_what_serves_is_registered_and_not_used(installation: Installation) -> None:
    told = events(request("lora", job=LITTLE), installation)
    last = told[-1]
    assert isinstance(last, AdapterRegistered) and last.in_use == () and not last.refused
    assert last.why_not == verdicts(told)["intent"].reason and "no scale of it was better" in last.why_not
    assert installation.registry.resolve(Task.INTENT) is None
    assert installation.registry.get("sums").metrics["gate_holes"] == 12
    installation.registry.use("sums")
    chosen = installation.registry.resolve(Task.INTENT)
    assert chosen is not None and chosen.digest == last.digest, "the user may use it anyway"


def test_it_is_judged_against_the_adapter_in_use_and_a_refused_version_does_not_get_the_name(
    installation: Installation,
) -> None:
    first = events(request("lora"), installation)[-1]
    told = events(request("lora", update=True, job=LITTLE), installation)
    verdict, last = verdicts(told)["intent"], told[-1]
    assert isinstance(first, AdapterRegistered) and isinstance(last, AdapterRegistered)
    assert verdict.opponent == "sums" and verdict.served.nats < verdict.base.nats - 0.1
    assert not verdict.activate and last.name == last.digest[:12]
    chosen = installation.registry.resolve(Task.INTENT)
    assert chosen is not None and chosen.digest == first.digest


def test_of_two_tasks_each_is_judged_against_what_serves_it_and_used_if_it_wins(installation: Installation) -> None:
    holes = tuple(
        FillExample(id=f"h{n}", prefix=f"# {n}\ny = ", middle="frobnicate(x)", suffix="\n") for n in range(40)
    )
    filling = DataSet(name="fill", train=holes[:24], validation=holes[24:28], test=holes[28:])
    first = events(replace(request("lora"), name="fill", load_data=lambda _tell: filling), installation)[-1]
    assert isinstance(first, AdapterRegistered) and first.in_use == ("fill",)
    other = tuple(replace(each, middle="quux[0] ** 2") for each in holes[:24])
    both = DataSet(
        name="both",
        train=(*ROWS[:24], *other),
        validation=(*ROWS[24:28], *holes[24:28]),
        test=(*ROWS[28:], *holes[28:]),
    )
    told = events(replace(request("lora"), load_data=lambda _tell: both), installation)
    found, last = verdicts(told), told[-1]
    assert isinstance(last, AdapterRegistered)
    assert (found["intent"].activate, found["fill"].activate) == (True, False), [each.reason for each in found.values()]
    assert found["intent"].scale == found["fill"].scale, "both are judged at one scale"
    assert (found["intent"].opponent, found["fill"].opponent) == (installation.entry.id, "fill")
    assert last.in_use == ("intent",)
    chosen = {task: installation.registry.resolve(task) for task in Task}
    assert {task: each.name for task, each in chosen.items() if each} == {Task.FILL: "fill", Task.INTENT: "sums"}
    metrics = installation.registry.get("sums").metrics
    assert metrics["gate_nats"] == found["fill"].adapter.nats
    assert metrics["intent_gate_nats"] == found["intent"].adapter.nats
    card = Path(last.folder, "README.md").read_text(encoding="utf-8")
    assert "## Does it help with holes?" in card and "## Does it help with sentences?" in card


def test_without_held_out_examples_or_without_a_judgement_nothing_is_used(installation: Installation) -> None:
    few = replace(DATA, test=DATA.test[:3])
    last = events(replace(request("lora"), load_data=lambda _tell: few), installation)[-1]
    assert isinstance(last, AdapterRegistered)
    assert last.in_use == () and "only 3 held-out sentences to judge by, 8 are needed" in last.why_not
    told = events(request("lora", update=True, gate_holes=0), installation)
    assert isinstance(told[-1], AdapterRegistered)
    assert not verdicts(told) and (told[-1].in_use, told[-1].why_not) == ((), "not judged")


def test_without_validation_examples_the_whole_adapter_is_judged(installation: Installation) -> None:
    whole = replace(DATA, validation=())
    told = events(replace(request("lora"), load_data=lambda _tell: whole), installation)
    assert isinstance(told[-1], AdapterRegistered)
    assert (verdicts(told)["intent"].scale, told[-1].in_use) == (1.0, ("intent",))


def test_the_run_tells_what_it_learns_from_and_is_judged_by(installation: Installation) -> None:
    told = events(request("lora", gate_holes=0, job=LITTLE), installation)
    (data,) = [each for each in told if isinstance(each, DataLoaded)]
    assert (data.name, data.train, data.validation, data.test, data.licence) == ("sums", 24, 4, 12, "MIT")


def test_a_name_that_is_taken_needs_an_update_which_can_be_rolled_back(installation: Installation) -> None:
    first = events(request("lora"), installation)[-1]
    with pytest.raises(Conflict, match="--update"):
        events(request("lora"), installation)
    second = events(request("lora", update=True, job={"options": MethodOptions(rank=4)}), installation)[-1]
    assert isinstance(first, AdapterRegistered) and isinstance(second, AdapterRegistered)
    assert installation.registry.get("sums").digest == second.digest != first.digest
    assert installation.registry.rollback("sums").digest == first.digest


@pytest.mark.parametrize("method", ["ia3", "prompt", "prefix"])
def test_what_llama_cpp_cannot_serve_is_registered_and_stays_out_of_use(
    installation: Installation, method: str
) -> None:
    last = events(request(method), installation)[-1]
    assert isinstance(last, AdapterRegistered)
    assert last.in_use == () and "PEFT_DAEMON_ENGINE=torch" in last.why_not
    assert last.refused, "`adapters use` would say the same"
    assert installation.registry.resolve(Task.INTENT) is None
    assert installation.registry.get("sums").engines == ("torch",)


def test_it_is_in_use_where_torch_serves(installation: Installation) -> None:
    torch_place = replace(installation, settings=Settings(engine="torch"))
    last = events(request("ia3"), torch_place)[-1]
    assert isinstance(last, AdapterRegistered) and last.in_use == ("intent",)


def test_it_stays_out_of_use_where_another_model_answers_sentences(installation: Installation) -> None:
    both = replace(installation, settings=Settings(intent_model="qwen2.5-coder-1.5b-instruct"))
    last = events(request("lora"), both)[-1]
    assert isinstance(last, AdapterRegistered)
    assert last.in_use == () and "qwen2.5-coder-1.5b-instruct" in last.why_not
    assert installation.registry.resolve(Task.INTENT) is None


def test_a_fully_tuned_model_is_written_and_no_adapter(installation: Installation) -> None:
    last = events(request("full"), installation)[-1]
    assert isinstance(last, ModelWritten)
    assert {"config.json", "model.safetensors", "peft-daemon.json"} <= {p.name for p in Path(last.folder).iterdir()}
    assert not installation.registry.list_adapters()


def test_no_activation_means_none(installation: Installation) -> None:
    last = events(request("lora", activate=False), installation)[-1]
    assert isinstance(last, AdapterRegistered) and last.in_use == ()
    assert installation.registry.resolve(Task.INTENT) is None and installation.registry.get("sums")
