"""Whatever PEFT itself and transformers' Trainer save is imported, and computes what it computed where it was made."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_core.errors import InvalidInput
from peft_core.status_types import TORCH
from peft_daemon.adapters import lora_config, peft_files, vectors
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.lora_server import serve

pytestmark = pytest.mark.torch

PROMPT = list(range(262, 285))
TEXT = 270
"""A token that is text: llama.cpp says nothing after a single byte, or the end."""
PROJECTIONS = ["q_proj", "v_proj", "down_proj"]
CLOSE = 0.01
"""Of log-probabilities; what differs is float32 rounding and the GGUF file's types."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    from support.tiny_served import tiny_gguf

    return tiny_gguf(tmp_path_factory.mktemp("base"), context=512)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT looks the base's vocabulary up on the hub when it saves."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def registry(tmp_path: Path) -> AdapterRegistry:
    return AdapterRegistry(tmp_path / "registry")


def lora(**options: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(**{"r": 4, "target_modules": PROJECTIONS, **options})


def stirred(model: Any) -> Any:
    """The model with its trainable weights set to the same numbers every time, far from where training begins."""
    import torch

    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2)
    return model.eval()


def adapted(base: BaseModel, config: Any, name: str = "default") -> Any:
    from peft import get_peft_model

    from support.tiny_served import loaded

    return stirred(get_peft_model(loaded(base).model, config, adapter_name=name))


def log_probabilities(model: Any) -> list[float]:
    """Of the token after the prompt."""
    import torch

    with torch.no_grad():
        row = torch.tensor([PROMPT])
        logits = model(input_ids=row, attention_mask=torch.ones_like(row)).logits
    return [float(value) for value in logits[0, -1].log_softmax(-1)]


def by_torch(base: BaseModel, registry: AdapterRegistry, name: str) -> list[float]:
    """What the torch engine's model computes with the imported adapter."""
    import torch

    from peft_daemon.engines.torch.adapters import AdapterCache
    from support.tiny_served import loaded

    alone = loaded(base)
    on = AdapterCache(alone, 1).activate(registry.lease(registry.get(name), engine=TORCH))
    with torch.no_grad():
        logits = alone.model(input_ids=torch.tensor([PROMPT]), past_key_values=on.empty_cache()).logits
    return [float(value) for value in logits[0, -1].log_softmax(-1)]


def by_llama_cpp(base: BaseModel, registry: AdapterRegistry, name: str) -> dict[int, float]:
    """The likeliest tokens of llama.cpp with the imported adapter."""
    with serve(base.path, [registry.lease(registry.get(name)).path]) as server:
        return server.tokens(PROMPT, [1.0], count=1, chosen=TEXT)[0].top


def saved_without_a_task(base: BaseModel, folder: Path) -> Any:
    model = adapted(base, lora())
    model.save_pretrained(str(folder))
    assert json.loads((folder / peft_files.CONFIG_FILE).read_bytes())["auto_mapping"], "the case this is about"
    return model


def saved_with_a_task(base: BaseModel, folder: Path) -> Any:
    model = adapted(base, lora(task_type="CAUSAL_LM", use_rslora=True, rank_pattern={"v_proj": 2}))
    model.save_pretrained(str(folder))
    return model


def saved_under_a_name(base: BaseModel, folder: Path) -> Any:
    model = adapted(base, lora(), "mine")
    model.save_pretrained(str(folder))
    assert not (folder / peft_files.CONFIG_FILE).exists() and (folder / "mine").is_dir(), "the case this is about"
    return model


def saved_by_transformers(base: BaseModel, folder: Path) -> Any:
    from support.tiny_served import loaded

    model = loaded(base).model
    model.add_adapter(lora())
    stirred(model).save_pretrained(str(folder))
    return model


def saved_by_a_trainer(base: BaseModel, folder: Path) -> Any:
    """A checkpoint of a run of two steps, with all that lies beside it."""
    import torch
    from transformers import Trainer, TrainingArguments

    model = adapted(base, lora())
    rows = [{"input_ids": torch.tensor(PROMPT), "labels": torch.tensor(PROMPT)}] * 4
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=2,
        max_steps=2,
        save_strategy="steps",
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=rows).train()
    beside = {entry.name for entry in (folder / "checkpoint-2").iterdir()}
    assert {"optimizer.pt", "scheduler.pt", "training_args.bin", "trainer_state.json"} < beside, "the case it is about"
    return model.eval()


LORAS: dict[str, Callable[[BaseModel, Path], Any]] = {
    "without a task": saved_without_a_task,
    "with a task": saved_with_a_task,
    "under a name": saved_under_a_name,
    "by transformers": saved_by_transformers,
    "by a trainer": saved_by_a_trainer,
}


@pytest.mark.parametrize("case", LORAS)
def test_a_lora_computes_in_llama_cpp_what_it_computed_in_peft(
    base: BaseModel, registry: AdapterRegistry, tmp_path: Path, case: str
) -> None:
    from support.tiny_served import loaded

    made, plain = log_probabilities(LORAS[case](base, tmp_path / "saved")), log_probabilities(loaded(base).model)
    assert max(abs(a - b) for a, b in zip(made, plain, strict=True)) > 0.1, "the adapter does something"
    registry.import_(tmp_path / "saved", name="mine", base=base)
    served = by_llama_cpp(base, registry, "mine")
    assert max(abs(made[token] - value) for token, value in served.items()) < CLOSE


@pytest.mark.parametrize("case", LORAS)
def test_what_was_imported_can_be_merged(base: BaseModel, registry: AdapterRegistry, tmp_path: Path, case: str) -> None:
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder
    from peft_tuning.methods import export_merged

    made = log_probabilities(LORAS[case](base, tmp_path / "saved"))
    manifest = registry.import_(tmp_path / "saved", name="mine", base=base)
    export_merged(manifest, registry.lease(manifest, engine=TORCH).path, base.path, tmp_path / "merged")
    merged = log_probabilities(load_hub_folder(tmp_path / "merged", Precision.FLOAT32).model)
    assert merged == pytest.approx(made, abs=CLOSE)


def vector_configs() -> dict[str, Any]:
    from peft import IA3Config, PrefixTuningConfig, PromptTuningConfig, TaskType

    layers = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    return {
        "dora": lora(use_dora=True),
        "ia3": IA3Config(**layers),
        "ia3 with a task": IA3Config(task_type=TaskType.CAUSAL_LM, **layers),
        "prompt": PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3),
        "prefix": PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3),
    }


@pytest.mark.parametrize("kind", ["dora", "ia3", "ia3 with a task", "prompt", "prefix"])
def test_an_adapter_of_another_method_computes_in_the_torch_engine_what_it_computed_in_peft(
    base: BaseModel, registry: AdapterRegistry, tmp_path: Path, kind: str
) -> None:
    model = adapted(base, vector_configs()[kind])
    model.save_pretrained(str(tmp_path / "saved"))
    registry.import_(tmp_path / "saved", name="mine", base=base)
    assert by_torch(base, registry, "mine") == pytest.approx(log_probabilities(model), abs=1e-4)


def test_pickled_weights_are_refused_with_a_command_that_converts_them(
    base: BaseModel, registry: AdapterRegistry, tmp_path: Path
) -> None:
    import torch
    from peft import get_peft_model_state_dict

    model = saved_without_a_task(base, tmp_path / "saved")
    (tmp_path / "saved" / peft_files.WEIGHTS_FILE).unlink()
    torch.save(get_peft_model_state_dict(model), tmp_path / "saved" / peft_files.PICKLED_WEIGHTS)
    with pytest.raises(InvalidInput, match=r"adapter_model\.bin is a pickle") as refused:
        registry.import_(tmp_path / "saved", name="mine", base=base)
    command = shlex.split(refused.value.fix.splitlines()[-1])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path / "saved", check=True)
    registry.import_(tmp_path / "saved", name="mine", base=base)
    assert by_torch(base, registry, "mine") == pytest.approx(log_probabilities(model), abs=1e-4)


def test_every_key_of_the_installed_peft_is_known() -> None:
    """Users are not refused for a key that is new and off. One that is new and set by default would refuse them all."""
    from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig

    known = {LoraConfig: lora_config.KNOWN_KEYS} | {
        config: vectors.VECTOR_METHODS[config().peft_type].keys
        for config in (IA3Config, PromptTuningConfig, PrefixTuningConfig)
    }
    for config, keys in known.items():
        assert config().to_dict().keys() - keys - lora_config.CODE_KEYS == set(), (
            f"{config.__name__} has keys to classify"
        )
