"""A whole run on a tiny base: what each method leaves in the registry, in use, and on the disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from peft_core.api_types import Task
from peft_core.errors import Conflict
from peft_core.settings import Settings
from peft_tuning.data.examples import DataSet, IntentExample
from peft_tuning.events import AdapterRegistered, ModelWritten, TuneEvent
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob
from peft_tuning.methods.base import MethodOptions
from peft_tuning.run import TuneRequest, run
from support.tiny_installation import tiny_installation

pytestmark = pytest.mark.torch

ROWS = tuple(IntentExample(id=str(n), intent=f"add {n}", code=f"x+{n}") for n in range(8))
DATA = DataSet(name="sums", train=ROWS[:6], validation=ROWS[6:], licence="MIT")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return tiny_installation(tmp_path)


def request(method: str, **changes: object) -> TuneRequest:
    job = TuneJob(method=method, epochs=2, batch_size=3, threads=1, options=changes.pop("options", MethodOptions()))  # type: ignore[arg-type]
    return TuneRequest(name="sums", job=job, load_data=lambda _tell: DATA, **changes)  # type: ignore[arg-type]


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
    assert chosen.metrics["train_examples"] == 6
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
    assert events(request("lora", resume=True), installation) == [told[-1]], "nothing is trained again"
    assert installation.registry.get("sums").digest == told[-1].digest
    assert installation.registry.resolve(Task.INTENT) is not None
    installation.registry.use("base", Task.INTENT)
    assert events(request("lora", resume=True), installation) == [told[-1]]
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


def test_a_name_that_is_taken_needs_an_update_which_can_be_rolled_back(installation: Installation) -> None:
    first = events(request("lora"), installation)[-1]
    with pytest.raises(Conflict, match="--update"):
        events(request("lora"), installation)
    second = events(request("lora", update=True, options=MethodOptions(rank=4)), installation)[-1]
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
