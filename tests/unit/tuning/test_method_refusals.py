"""What cannot work is refused by name: before anything loads, and before a file is trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound, PeftDaemonError
from peft_daemon.engines.torch import families
from peft_tuning import methods
from peft_tuning.methods.base import MethodOptions
from support.tiny_models import tiny_base

pytestmark = pytest.mark.torch

OPTIONS = [
    ("ia3", {"rank": 8}, "'rank' is not an option of ia3"),
    ("full", {"dora": True}, "'dora' is not an option of full"),
    ("prompt", {"alpha": 8.0}, "'alpha' is not an option of prompt"),
    ("prefix", {"init_text": "x"}, "'init_text' is not an option of prefix"),
    ("lora", {"virtual_tokens": 8}, "'virtual_tokens' is not an option of lora"),
    ("prefix", {"gradient_checkpointing": True}, "key-value cache"),
    ("lora", {"init": "loftq"}, "quantizes the base itself"),
    ("lora", {"init": "corda"}, "covariances"),
    ("lora", {"init": "pisa"}, "Choose one of default, gaussian"),
    ("lora", {"init": "orthogonal", "rank": 5}, "Type `--rank 6`"),
    ("lora", {"init": "pissa", "dora": True}, "DoRA's magnitudes"),
    ("qlora-4bit", {"init": "pissa"}, "quantized weights cannot give"),
    ("qlora-8bit", {"init": "olora"}, "quantized weights cannot give"),
    ("qlora-4bit", {"init": "orthogonal"}, "are integers"),
    ("qlora-8bit", {"dora": True}, "lose their scales"),
]


@pytest.mark.parametrize(("method_id", "options", "reason"), OPTIONS, ids=str)
def test_an_option_is_refused_before_anything_loads(method_id: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        methods.get(method_id).check(families.family_of("qwen2"), MethodOptions(**options))


def test_what_a_family_cannot_do_is_refused_with_its_reason() -> None:
    family = families.Family(
        id="odd",
        model_types=("odd",),
        lora_targets=(),
        ia3_targets=(),
        ia3_feedforward=(),
        unsupported={"prefix": "why"},
    )
    methods.get("lora").check(family, MethodOptions())
    with pytest.raises(InvalidInput, match="odd models cannot be tuned with prefix: why"):
        methods.get("prefix").check(family, MethodOptions())


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="lora, qlora-4bit, qlora-8bit, ia3, prompt, prefix, full"):
        methods.get("adalora")
    with pytest.raises(InvalidInput, match="qwen2, qwen3, llama, codegen, gpt_bigcode, starcoder2, t5"):
        families.family_of("mamba")


def test_the_study_s_learning_rates() -> None:
    rates = {method.id: method.learning_rate for method in methods.METHODS.values()}
    assert rates == {
        **{"lora": 3e-4, "qlora-4bit": 3e-4, "qlora-8bit": 3e-4, "full": 5e-5},
        **{"ia3": 3e-3, "prompt": 3e-3, "prefix": 3e-2},
    }
    assert methods.default_for("cpu").id == "lora"
    assert methods.default_for("cuda:0").id == "qlora-4bit"


@pytest.mark.parametrize("method_id", ["lora", "full"])
def test_a_quantized_base_is_only_for_the_methods_made_for_it(method_id: str) -> None:
    with pytest.raises(InvalidInput, match="nf4"):
        methods.get(method_id).apply(tiny_base("qwen2", "nf4"), MethodOptions(), seed=1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """An untrained LoRA."""
    method = methods.get("lora")
    method.save(method.apply(tiny_base("qwen2"), MethodOptions(rank=2), seed=1), tmp_path)
    return tmp_path


def loading_fails(folder: Path, method_id: str = "lora") -> PeftDaemonError:
    base = tiny_base("qwen2")
    with pytest.raises(PeftDaemonError) as caught:
        methods.get(method_id).load(base, folder)
    return caught.value


def test_a_pickle_beside_the_weights_is_refused(saved: Path) -> None:
    (saved / "adapter_model.bin").write_bytes(b"\x80")
    assert "pickle" in str(loading_fails(saved))


def test_a_pickle_instead_of_the_weights_is_refused(saved: Path) -> None:
    (saved / "adapter_model.safetensors").rename(saved / "adapter_model.pt")
    assert "pickle" in str(loading_fails(saved))


def test_missing_weights_and_folders_are_named(saved: Path) -> None:
    (saved / "adapter_model.safetensors").unlink()
    assert "holds no adapter_model.safetensors" in str(loading_fails(saved))
    assert "holds no adapter_config.json" in str(loading_fails(saved / "nowhere"))
    assert "holds no model" in str(loading_fails(saved, "full"))


def test_another_methods_adapter_is_refused(saved: Path) -> None:
    assert "'LORA'" in str(loading_fails(saved, "ia3"))


CHANGES = [
    {"auto_mapping": {"base_model_class": "os", "parent_library": "os"}},
    {"modules_to_save": ["lm_head"]},
    {"target_modules": "(a+)+$"},
    {"target_modules": ["(a+)+$"]},
    {"rank_pattern": {".*": 3}},
    {"megatron_config": {"x": 1}},
    {"trainable_token_indices": [1]},
    {"layer_replication": [[0, 2]]},
    {"something_new": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_config_that_asks_for_more_is_refused(saved: Path, change: dict[str, object]) -> None:
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert next(iter(change)) in str(loading_fails(saved))


def test_a_fully_tuned_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    method = methods.get("full")
    method.save(method.apply(tiny_base("llama"), MethodOptions(), seed=1), tmp_path)
    assert "holds a llama model" in str(loading_fails(tmp_path, "full"))
