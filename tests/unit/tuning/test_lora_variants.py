"""LoRA's initializations and DoRA: each trains, and what is saved fits the base as released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_methods_on_every_family import logits, train

from support.tiny_models import tiny_base

pytestmark = pytest.mark.torch

SAVED_AS_TRAINED = (
    {"init": "gaussian"},
    {"init": "orthogonal"},
    {"init": "eva"},
    {"rslora": True},
    {"dora": True},
    {"dora": True, "rslora": True, "init": "eva"},
)
SAVED_AS_DIFFERENCE = (
    {"init": "pissa"},
    {"init": "pissa_niter_4"},
    {"init": "olora"},
    {"init": "pissa", "rslora": True},
)


@pytest.mark.parametrize("family", ["qwen2", "codegen", "t5"])
@pytest.mark.parametrize("options", SAVED_AS_TRAINED, ids=str)
def test_a_variant_reloads_bit_for_bit(family: str, options: dict[str, object], tmp_path: Path) -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("lora")
    model, losses = train(method, family, MethodOptions(rank=4, **options))
    assert losses[-1] < losses[0]
    method.save(model, tmp_path)
    assert torch.equal(logits(method.load(tiny_base(family), tmp_path)), logits(model))


@pytest.mark.parametrize("family", ["qwen2", "gpt_bigcode", "t5"])
@pytest.mark.parametrize("options", SAVED_AS_DIFFERENCE, ids=str)
def test_what_is_taken_out_of_the_base_is_saved_as_a_difference(
    family: str, options: dict[str, object], tmp_path: Path
) -> None:
    import torch

    from peft_daemon.adapters import lora_config
    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("lora")
    model, losses = train(method, family, MethodOptions(rank=4, **options))
    assert losses[-1] < losses[0]
    method.save(model, tmp_path)
    loaded = [logits(method.load(tiny_base(family), tmp_path)) for _ in range(2)]
    assert torch.equal(*loaded)
    # The same function, its sum taken in another order.
    assert torch.allclose(loaded[0], logits(model), atol=1e-5)
    learned = (logits(model) - logits(tiny_base(family).model)).abs().max()
    assert learned > 0.05
    served = lora_config.parse_lora_config((tmp_path / "adapter_config.json").read_bytes())
    assert served.rank == 8


def test_saving_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("lora")
    model, _ = train(method, "qwen2", MethodOptions(init="pissa"))
    before, generator = logits(model), torch.random.get_rng_state()
    method.save(model, tmp_path)
    assert torch.equal(logits(model), before)
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_a_plain_lora_can_be_served(tmp_path: Path) -> None:
    from peft_daemon.adapters import lora_config
    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("lora")
    method.save(method.apply(tiny_base("qwen2"), MethodOptions(), seed=1), tmp_path)
    served = lora_config.parse_lora_config((tmp_path / "adapter_config.json").read_bytes())
    assert (served.rank, served.alpha, served.rslora) == (16, 32.0, False)
    written = json.loads((tmp_path / "adapter_config.json").read_bytes())
    assert written["lora_dropout"] == 0.05
    assert written["inference_mode"] is True


@pytest.mark.parametrize("options", [{"dora": True}, {"init": "eva"}], ids=str)
def test_a_variant_on_four_bits_reloads_bit_for_bit(options: dict[str, object], tmp_path: Path) -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("qlora-4bit")
    model, losses = train(method, "qwen2", MethodOptions(rank=4, **options))
    assert losses[-1] < losses[0]
    method.save(model, tmp_path)
    assert torch.equal(logits(method.load(tiny_base("qwen2", "nf4"), tmp_path)), logits(model))


def test_eva_without_data_is_refused() -> None:
    from peft_core.errors import InvalidInput
    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get("lora")
    options = MethodOptions(init="eva")
    assert method.needs_calibration(options)
    assert not method.needs_calibration(MethodOptions())
    with pytest.raises(InvalidInput, match="no training data"):
        method.apply(tiny_base("qwen2"), options, seed=1)
